// Keeps slices amid garbage: Go maps memory on a stack of its runtime's, not on the goroutine's.
package main

import (
	"os"
	"strconv"
	"time"
)

var kept [][]byte

//go:noinline
func keepRequest(bytes int) {
	block := make([]byte, bytes)
	for i := range block {
		block[i] = 1
	}
	kept = append(kept, block)
}

//go:noinline
func serve() (sum int) {
	for i := 0; i < 100; i++ {
		sum += len(make([]byte, 1000))
	}
	return sum
}

func main() {
	rate, _ := strconv.Atoi(os.Getenv("LAB_RATE"))
	seconds, _ := strconv.Atoi(os.Getenv("LAB_SECONDS"))
	for begun := time.Now(); time.Since(begun) < time.Duration(seconds)*time.Second; {
		keepRequest(40000)
		serve()
		time.Sleep(time.Duration(40000 * 1000000000 / rate))
	}
}
