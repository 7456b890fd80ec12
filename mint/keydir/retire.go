package keydir

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// minPrefix is the least that stands for a key id, in characters.
const minPrefix = 6

// Retire takes a key out of use, which the kid names in full or by its first six
// characters or more.
//
// A key that waits is dropped, as nothing was signed with it; in the place of the
// only key of a directory comes a new one. The active key and retired ones are
// refused, as they leave by themselves once others have taken their place.
//
// With now, which is for a stolen key, the active and retired keys leave at once
// too, and their private keys are removed. In the place of the active key the one
// that waits signs from now on, or a new one. Until verifiers have fetched the
// document anew they refuse what it signs, and what the old key has signed they
// may still take.
//
// Where nothing signs because the clock was ahead when a key was published, now
// gets out of that too: the key named goes, and another one signs from now on.
func (d *Dir) Retire(ctx context.Context, kid string, now bool) error {
	_, err := d.update(ctx, func(e *edit) error {
		if err := e.retire(kid, now); err != nil {
			return fmt.Errorf("keydir: retire a key of %q: %w", d.path, err)
		}
		return nil
	})
	return err
}

func (e *edit) retire(kid string, now bool) error {
	k, err := e.lookup(kid)
	switch {
	case err != nil:
		return err
	case k.State == Pending || k.State == Published && e.signs():
		return e.dropWaiting(k)
	case !now:
		return e.leavesByItself(k)
	}
	// The times of a key follow from the next one's: without that, one which has
	// left the document would come back.
	e.removed = append(e.removed, e.trim(e.now, 0)...)
	e.drop(k.ID)
	if k.State == Retired {
		return nil
	}
	return e.takeOver(k.Bits)
}

// signs reports whether a key signs now.
func (e *edit) signs() bool {
	_, ok := e.activeAt(e.now)
	return ok
}

// lookup finds the one key whose id begins so, also among those that have left the
// document: their files can be stolen too.
func (e *edit) lookup(prefix string) (Key, error) {
	if len(prefix) < minPrefix {
		return Key{}, fmt.Errorf("%q is too short for a key id: give %d characters or more", prefix, minPrefix)
	}
	var found []Key
	for _, k := range e.everyKeyAt(e.now) {
		if strings.HasPrefix(k.ID, prefix) {
			found = append(found, k)
		}
	}
	switch len(found) {
	case 0:
		return Key{}, fmt.Errorf("no key has an id that begins with %q: svidecar keys list shows them", prefix)
	case 1:
		return found[0], nil
	}
	return Key{}, fmt.Errorf("%d keys have an id that begins with %q: give more of it", len(found), prefix)
}

func (e *edit) drop(kid string) {
	e.Keys = slices.DeleteFunc(e.Keys, func(k entry) bool { return k.ID == kid })
}

// dropWaiting keeps at least one key in the manifest.
func (e *edit) dropWaiting(k Key) error {
	e.drop(k.ID)
	if len(e.Keys) > 0 {
		return nil
	}
	_, err := e.newKey(k.Bits)
	return err
}

// leavesByItself is the refusal to hurry.
func (e *edit) leavesByItself(k Key) error {
	switch {
	case k.State == Published:
		return errors.New(noneSigns(k))
	case k.left(e.now):
		return fmt.Errorf("%s has left the document, and its file goes after %s", k.ID, k.RemovedAt.Add(keep).Format(time.RFC3339))
	case k.State == Retired:
		return fmt.Errorf("%s signs no more, and leaves by itself at %s", k.ID, k.RemovedAt.Format(time.RFC3339))
	}
	switch next := waiting(e.keysAt(e.now)); {
	case next == nil:
		return fmt.Errorf("%s signs: run svidecar keys rotate, and it retires by itself when the new key signs", k.ID)
	case next.State == Pending:
		return fmt.Errorf("%s signs, and retires by itself when %s does: run svidecar keys export, or svidecar issuer, to publish that", k.ID, next.ID)
	default:
		return fmt.Errorf("%s signs, and retires by itself at %s, when %s signs", k.ID, next.SignsFrom.Format(time.RFC3339), next.ID)
	}
}

// noneSigns says why no key signs although k is published, and what to do.
func noneSigns(k Key) string {
	return fmt.Sprintf("no key signs before %s: set this machine's clock if that is late; if it was wrong when the key was published, run svidecar keys retire --unsafe-now %s, and another one signs at once",
		k.SignsFrom.Format(time.RFC3339), k.ID)
}

// takeOver lets the next key sign from now, whether or not verifiers have it. bits
// is for a new one, if none waits.
func (e *edit) takeOver(bits int) error {
	next := waiting(e.keysAt(e.now))
	if next == nil {
		added, err := e.newKey(bits)
		if err != nil {
			return err
		}
		next = &Key{ID: added.ID}
	}
	i := slices.IndexFunc(e.Keys, func(k entry) bool { return k.ID == next.ID })
	now := e.now.UTC().Truncate(time.Second)
	e.Keys[i].SignsFrom = now
	if published := e.Keys[i].Published; published.IsZero() || published.After(now) {
		e.Keys[i].Published = now
	}
	return nil
}
