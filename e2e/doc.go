// Package e2e owns the tests that run the real program as a process and ask it
// through real, unmodified clients. It never reaches into the program's
// packages to decide what is right: the clients and the emulator's counts do.
//
// It needs nothing but Go, touches nothing but loopback, and no client in it can
// reach the real 169.254.169.254.
package e2e
