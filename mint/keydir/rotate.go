package keydir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// MarkPublished notes that a document with these keys is public from now on. Of
// those that are pending the publication wait begins; a key that is not, or is no
// longer there, is passed over, so a call may be repeated. Where no key was ever
// published, nobody can hold an older document, and the first key signs at once.
//
// If nothing changes nothing is written, so that a directory which is read-only
// does as long as no key is pending. When it cannot be written to, the error
// matches [fs.ErrPermission].
func (d *Dir) MarkPublished(ctx context.Context, kids ...string) error {
	if err := d.Reload(); err != nil {
		return err
	}
	if m := d.snapshot.Load().clone(); !m.publish(kids, time.Now()) {
		return nil
	}
	_, err := d.update(ctx, func(e *edit) error {
		e.publish(kids, e.now)
		return nil
	})
	return err
}

// Publish lets show make a document with all keys public, and then notes that, as
// [Dir.MarkPublished] does. No other writer is at work meanwhile: of two calls the
// later one shows what the earlier one left. Nothing is noted if show fails.
//
// In a directory that cannot be written to, show is called all the same if no key
// is pending, because then there is nothing to note.
func (d *Dir) Publish(ctx context.Context, show func(keys []Key) error) error {
	shown := false
	_, err := d.update(ctx, func(e *edit) error {
		keys := e.keysAt(e.now)
		shown = true
		if err := show(keys); err != nil {
			return err
		}
		e.publish(idsOf(keys), time.Now())
		return nil
	})
	keys := d.Keys()
	if shown || !errors.Is(err, fs.ErrPermission) || slices.ContainsFunc(keys, func(k Key) bool { return k.State == Pending }) {
		return err
	}
	return show(keys)
}

func idsOf(keys []Key) (ids []string) {
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	return ids
}

// publish sets the times of pending keys. The wait is counted from the next whole
// second, so that it is never short.
func (m *manifest) publish(kids []string, now time.Time) (changed bool) {
	first := len(m.timed()) == 0
	published := now.UTC().Truncate(time.Second)
	for i := range m.Keys {
		e := &m.Keys[i]
		if !e.SignsFrom.IsZero() || !slices.Contains(kids, e.ID) {
			continue
		}
		signs := published
		if !first {
			signs = now.UTC().Add(time.Second - 1).Truncate(time.Second).Add(time.Duration(m.Wait))
		}
		if latest := m.latest(); !signs.After(latest) {
			signs = latest.Add(time.Second)
		}
		e.Published, e.SignsFrom, changed = published, signs, true
	}
	return changed
}

// latest is the last time at which a key begins to sign, or zero.
func (m manifest) latest() (latest time.Time) {
	for _, e := range m.Keys {
		if e.SignsFrom.After(latest) {
			latest = e.SignsFrom
		}
	}
	return latest
}

// Rotate makes a new key, of as many bits as the newest one, which is pending. If
// a key is waiting already, the error matches [ErrRotating].
func (d *Dir) Rotate(ctx context.Context) (Key, error) {
	made, _, err := d.rotate(ctx, func(*edit) bool { return true })
	return made, err
}

// RotateWithWait is [Dir.Rotate], and this key and later ones wait that long, which
// is in the range of [Options]. If it makes no key, the wait stays as it was.
func (d *Dir) RotateWithWait(ctx context.Context, wait time.Duration) (Key, error) {
	if err := checkWait(wait); err != nil {
		return Key{}, fmt.Errorf("keydir: publication wait: %w", err)
	}
	made, _, err := d.rotate(ctx, func(e *edit) bool {
		e.Wait = duration(wait)
		return true
	})
	return made, err
}

// RotateIfDue is [Dir.Rotate] if the active key will be as old as every when a
// new one may sign, and no key is waiting; it reports whether it made one. every
// must be longer than the publication wait and the 1 h 5 min that a retired key
// stays, so that one rotation ends before the next.
func (d *Dir) RotateIfDue(ctx context.Context, every time.Duration) (Key, bool, error) {
	if err := d.Reload(); err != nil {
		return Key{}, false, err
	}
	if least := time.Duration(d.snapshot.Load().Wait) + linger; every <= least {
		return Key{}, false, fmt.Errorf("keydir: rotate every %v: %w: want more than %v, the publication wait and the time that a retired key stays", every, ErrTooOften, least)
	}
	if !d.snapshot.Load().due(every, time.Now()) {
		return Key{}, false, nil
	}
	return d.rotate(ctx, func(e *edit) bool { return e.due(every, e.now) })
}

// due reports whether a key that is made now may sign only when the active one is
// as old as every. Where no key waits, the first one is active.
func (m manifest) due(every time.Duration, now time.Time) bool {
	keys := m.keysAt(now)
	return waiting(keys) == nil && !now.Before(keys[0].SignsFrom.Add(every-time.Duration(m.Wait)))
}

// waiting returns the first of the keys that do not sign yet, or nil.
func waiting(keys []Key) *Key {
	i := slices.IndexFunc(keys, func(k Key) bool { return k.State == Published || k.State == Pending })
	if i < 0 {
		return nil
	}
	return &keys[i]
}

func (d *Dir) rotate(ctx context.Context, due func(*edit) bool) (made Key, rotated bool, err error) {
	_, err = d.update(ctx, func(e *edit) error {
		if !due(e) {
			return nil
		}
		if err := e.mayRotate(); err != nil {
			return fmt.Errorf("keydir: rotate %q: %w", d.path, err)
		}
		added, err := e.newKey(e.Keys[len(e.Keys)-1].bits())
		if err == nil {
			made, rotated = added.key(Pending), true
		}
		return err
	})
	if err != nil && !errors.Is(err, ErrLeft) {
		return Key{}, false, err
	}
	return made, rotated, err
}

// mayRotate holds the two limits of what may be in the document.
func (e *edit) mayRotate() error {
	keys := e.keysAt(e.now)
	switch k := waiting(keys); {
	case k != nil && k.State == Pending:
		return fmt.Errorf("%w: %s, which was not published yet; run svidecar keys export, or svidecar issuer", ErrRotating, k.ID)
	case k != nil:
		return fmt.Errorf("%w: %s, which signs from %s", ErrRotating, k.ID, k.SignsFrom.Format(time.RFC3339))
	case len(keys) >= maxDocumented:
		return fmt.Errorf("the document holds %d keys, and Entra reads no more: the next one leaves it at %s",
			len(keys), e.nextChange(e.now).Format(time.RFC3339))
	}
	return nil
}

// Prune removes the keys that have left the document 7 days ago or more, and what writers that died have
// left; what it cannot remove is an error that matches [ErrLeft]. If there is nothing to remove it writes nothing. Other changes prune too.
func (d *Dir) Prune(ctx context.Context) (removed []string, err error) {
	if err := d.Reload(); err != nil {
		return nil, err
	}
	m := d.snapshot.Load().clone()
	names, err := d.leftovers(m)
	if err == nil && len(names) == 0 && len(m.prune(time.Now())) == 0 {
		return nil, nil
	}
	return d.update(ctx, func(e *edit) error {
		e.thorough = true
		return nil
	})
}
