// Command pause holds a pod's namespaces open until it is told to end. It never does anything else but bury processes
// that have lost their parent, which come to it where a pod shares one process namespace.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals)
	for s := range signals {
		switch s {
		case syscall.SIGINT, syscall.SIGTERM:
			return
		}
		bury()
	}
}
