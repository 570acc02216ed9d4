"""carrier.py LIBRARY [ARGUMENT…]: runs the main function of a C program that was built as a library, for
tools that trace only what Python runs."""
import ctypes
import sys

library = ctypes.CDLL(sys.argv[1])
words = [word.encode() for word in sys.argv[1:]]
library.main(len(words), (ctypes.c_char_p * len(words))(*words))
