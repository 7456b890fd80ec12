// Package clients owns the test in which real, unmodified clients of managed
// identity, in the languages that apps are written in, ask one sidecar for tokens:
// each as a process of its own, over each protocol and by each selector that it has.
// docs/compatibility.md keeps what came of it, and a cell that differs fails. Some
// then use their tokens, at stand-ins for Azure's services that look at them.
//
// The clients come from their ecosystems' registries at the versions of the lock
// files in testdata, and are kept in the user's cache. They run in a network
// namespace that has a loopback link alone, where 169.254.169.254 leads to the
// sidecar; they never run outside of it.
//
// Its tests need Linux and the build tag e2e: make e2e.
package clients
