//go:build e2e

package chaos_test

const fullByTag = true
