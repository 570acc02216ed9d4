/* Seems to leak: compiles ever less, as a compiler at run time does once its program is warm. */
#include "lab.h"

int main(void) {
    uint64_t most = lab.rate ? lab.rate * lab_number("LAB_WARM", 5) : lab.bytes;
    uint64_t piece = most / 20 / LAB_PAGE * LAB_PAGE, compiled = 0;
    double at = lab_now();
    /* Each piece takes a little longer than the one before. */
    for (int i = 1; i <= 12; i++, at += lab.rate ? (double)piece / lab.rate * (i * i / 4.0) : 0) {
        double due = at - lab_now();
        if (due > 0 && lab_wait(due)) break;
        lab_touch(mmap(NULL, piece, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), piece);
        compiled += piece;
    }
    lab_layer("jit", compiled);
    return lab_finish(0);
}
