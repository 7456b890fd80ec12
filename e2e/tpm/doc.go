// Package tpm owns the tests in which the real program signs with a key that
// other people's tools have made in a TPM, by the commands of docs/operations.md,
// "A key in a TPM". It never uses a TPM of the machine: swtpm stands in.
//
// Its tests need Linux, swtpm, tpm2-tools and the build tag e2e: make e2e.
package tpm
