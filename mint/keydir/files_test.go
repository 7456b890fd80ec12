package keydir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/svidecar/svidecar/mint"
)

// TestCheckFiles: the next key's file is looked at before it is needed, and the
// present one's although it was read.
func TestCheckFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := staged(t, true) // C:active D:published B:retired
		if err := f.CheckFiles(); err != nil || f.signer() != "C" {
			t.Fatalf("CheckFiles = %v with all files", err)
		}
		remove := func(name string) { f.must(os.Remove(filepath.Join(f.Path(), f.kid(name)+".pem"))) }
		check := func(missing bool, says string) {
			t.Helper()
			err := f.CheckFiles()
			if err == nil || errors.Is(err, fs.ErrNotExist) != missing || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("CheckFiles = %v; want one line, and that all are missing: %v", err, missing)
			}
			for _, name := range []string{"B", "C", "D"} {
				if got, want := strings.Contains(err.Error(), f.kid(name)), strings.Contains(says, name); got != want {
					t.Errorf("CheckFiles = %v; it names %s: %v, want %v", err, name, got, want)
				}
			}
		}
		remove("B") // which signs no more
		if err := f.CheckFiles(); err != nil {
			t.Errorf("CheckFiles without a retired key's file = %v", err)
		}
		remove("D")
		check(false, "D")
		remove("C")
		check(true, "CD")
		f.must(mint.WriteKey(filepath.Join(f.Path(), f.kid("D")+".pem"), keyAt(7)))
		check(false, "CD")
		if f.signer() != "C" {
			t.Error("the key that was read does not sign any more")
		}
	})
}
