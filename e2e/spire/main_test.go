//go:build linux

package spire_test

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if runStandIn() {
		return
	}
	os.Exit(m.Run())
}
