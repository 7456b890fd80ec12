// Package verify owns the tests in which others verify what svidecar signs and
// publishes: PyJWT, jose on Node.js, and OpenSSL. It never verifies anything by our
// own code, and holds each verifier to refusing forgeries, so that its consent means
// something.
//
// It installs the two libraries at the versions and hashes of its lock files, from
// the package registries that pip and npm are set up for, into a folder that goes
// away with the test.
//
// Its tests need Linux and the build tag e2e: make e2e.
package verify
