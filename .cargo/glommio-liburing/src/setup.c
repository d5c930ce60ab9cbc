#include "shipped/setup.c"
