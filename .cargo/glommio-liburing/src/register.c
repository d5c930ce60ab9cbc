#include "shipped/register.c"
