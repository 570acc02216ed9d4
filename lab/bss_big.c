/* Fills a large static array: the kernel calls it anonymous, it is the program's own data. */
#include "lab.h"

enum { BYTES = 128 << 20 };
static char table[BYTES];

int main(void) {
    lab_touch(table, BYTES);
    lab_layer("code", BYTES);
    return lab_finish(0);
}
