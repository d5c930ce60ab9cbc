#include "shipped/syscall.c"
