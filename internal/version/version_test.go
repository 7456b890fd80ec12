package version_test

import (
	"runtime"
	"testing"

	"github.com/svidecar/svidecar/internal/version"
)

func TestLine(t *testing.T) {
	if got, want := version.Line("svidecar", "v1.2.3"), "svidecar v1.2.3 "+runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH; got != want {
		t.Errorf("Line = %q, want %q", got, want)
	}
	if version.Of("") == "" {
		t.Error("a build without a release says nothing")
	}
}
