// Package netns owns the tests in which unmodified clients ask the real address
// of the metadata service, 169.254.169.254, with nothing of ours in between. It
// never sends a packet outside the network namespace that it makes for itself,
// in which the loopback link is the only one.
//
// Its tests need Linux and the build tag e2e: make e2e.
package netns
