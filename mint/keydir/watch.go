package keydir

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// lookAgain is for file systems that do not notify, such as NFS, and for a
	// system that has no notifications left to give.
	lookAgain = time.Minute

	// settle makes one look of the events of one change.
	settle = 50 * time.Millisecond
)

// Watch reloads the directory and calls changed(nil) at first, after each change
// of the manifest, and when a key's state changes by itself; and changed(err)
// when it cannot be read, which leaves the old contents in use. It notices a
// change at once where the file system notifies, and within a minute elsewhere.
// It returns nil when ctx ends. changed is not called after that, and by one
// goroutine only.
func (d *Dir) Watch(ctx context.Context, changed func(err error)) error {
	told := d.notices()
	defer told.close()
	seen := seen{failed: true} // so that the first look differs
	for ctx.Err() == nil {
		seen = d.look(seen, changed)
		told.watch(d.path) // again, as the directory may be another one by now
		d.pause(ctx, told)
	}
	return nil
}

// seen is what a look saw.
type seen struct {
	raw    string // of the manifest
	states string
	failed bool // the manifest could not be read
}

func (d *Dir) look(before seen, changed func(error)) seen {
	err := d.Reload()
	if err != nil {
		changed(err)
	}
	now := d.see()
	now.failed = err != nil
	if now.raw != before.raw || now.states != before.states || before.failed && !now.failed {
		changed(nil)
	}
	return now
}

func (d *Dir) see() seen {
	s := d.snapshot.Load()
	var states strings.Builder
	for _, k := range s.keysAt(time.Now()) {
		fmt.Fprintf(&states, "%s %v\n", k.ID, k.State)
	}
	return seen{raw: string(s.raw), states: states.String()}
}

// notices are what the file system says of the directory: nothing, where it does
// not notify.
type notices struct {
	watcher *fsnotify.Watcher // may be nil
	events  <-chan fsnotify.Event
	errs    <-chan error
}

func (d *Dir) notices() (n notices) {
	if d.hooks.quiet {
		return n
	}
	if watcher, err := fsnotify.NewWatcher(); err == nil {
		n = notices{watcher, watcher.Events, watcher.Errors}
	}
	n.watch(d.path)
	return n
}

func (n notices) watch(dir string) {
	if n.watcher != nil {
		_ = n.watcher.Add(dir)
	}
}

func (n notices) close() {
	if n.watcher != nil {
		_ = n.watcher.Close()
	}
}

// pause waits for a reason to look.
func (d *Dir) pause(ctx context.Context, told notices) {
	wait := lookAgain
	if next := d.NextChange(); !next.IsZero() {
		wait = min(wait, max(time.Until(next), time.Millisecond))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case event := <-told.events:
			if !concerns(event) {
				continue
			}
		case <-told.errs: // such as too many events: some are lost
		}
		timer.Reset(min(settle, wait))
		told = notices{} // one look for all that comes meanwhile
	}
}

// concerns reports whether the manifest may be another one. kubelet changes a
// Secret by one link called ..data.
func concerns(event fsnotify.Event) bool {
	name := filepath.Base(event.Name)
	return name == manifestName || name == "..data"
}
