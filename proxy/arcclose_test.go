package proxy

import (
	"errors"
	"os"
	"testing"
)

// TestArcClose: a challenge at the time of the end has a path or an error, and
// leaves no file. It looks inside, since a server ends only after its requests.
func TestArcClose(t *testing.T) {
	dir := t.TempDir()
	for range 300 {
		a := &arcKeys{dir: dir}
		if err := a.open(); err != nil {
			t.Fatal(err)
		}
		begun, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			close(begun)
			for {
				path, err := a.challenge()
				if path == "" && err == nil {
					err = errors.New("neither a path nor an error")
				}
				if err != nil {
					ended <- err
					return
				}
			}
		}()
		<-begun
		a.close()
		if err := <-ended; !errors.Is(err, errArcClosed) {
			t.Fatalf("the last challenge: %v", err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Fatalf("left behind: %v, %v", left, err)
		}
	}
}
