//go:build !e2e

package tpm_test

const mustRun = false
