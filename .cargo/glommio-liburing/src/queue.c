#include "shipped/queue.c"
