package keydir

import (
	"crypto"
	"slices"
	"time"
)

// linger is how long a key stays in the document after it stopped signing: the
// longest life of an assertion that package mint makes, and 5 min for clocks
// that differ.
const linger = time.Hour + 5*time.Minute

// keep is how long a key stays in the directory after it has left the document. A
// clock that is ahead by less takes nothing away for good: when it is right again
// the key goes on.
const keep = 7 * 24 * time.Hour

// State is what a key may do at a moment. It follows from the manifest and the
// time alone, so that every process agrees on it and none has to write it down.
type State int

// The states of a key, in the order of its life. After them it is gone.
const (
	Pending   State = iota // was in no published document yet; never signs
	Published              // is in the document, and waits until SignsFrom
	Active                 // signs: the one key of the directory that does
	Retired                // signs no more, and stays in the document until RemovedAt
)

// String returns the state's name in lower case.
func (s State) String() string {
	switch s {
	case Pending:
		return "pending"
	case Published:
		return "published"
	case Active:
		return "active"
	case Retired:
		return "retired"
	}
	return "unknown"
}

// Key is one key at one moment. Times are in UTC and whole seconds, and zero
// while they are not known.
type Key struct {
	ID        string // as mint.KeyID names it
	State     State
	Bits      int
	Created   time.Time
	Published time.Time        // when a document with it was first public
	SignsFrom time.Time        // when it becomes Active
	RetiredAt time.Time        // when its successor becomes Active
	RemovedAt time.Time        // when it leaves the document; its file goes 7 days later
	Public    crypto.PublicKey // an *rsa.PublicKey, not to be changed
}

// keysAt derives the states. The order is that of [Dir.Keys].
func (m manifest) keysAt(now time.Time) []Key {
	return slices.DeleteFunc(m.everyKeyAt(now), func(k Key) bool { return k.left(now) })
}

// left reports whether the key was in the document and is no more.
func (k Key) left(now time.Time) bool { return k.State == Retired && !now.Before(k.RemovedAt) }

// everyKeyAt is keysAt with the keys that have left the document, as Retired.
func (m manifest) everyKeyAt(now time.Time) []Key {
	timed, pending := m.timed(), []Key(nil)
	for _, e := range m.Keys {
		if e.SignsFrom.IsZero() {
			pending = append(pending, e.key(Pending))
		}
	}
	active := lastActive(timed, now)
	var out []Key
	for i := max(active, 0); i < len(timed); i++ {
		state := Published
		if i == active {
			state = Active
		}
		out = append(out, succeeded(timed, i, state))
	}
	out = append(out, pending...)
	for i := active - 1; i >= 0; i-- {
		out = append(out, succeeded(timed, i, Retired))
	}
	return out
}

// timed returns the published keys in the order in which they sign.
func (m manifest) timed() []entry {
	timed := slices.DeleteFunc(slices.Clone(m.Keys), func(e entry) bool { return e.SignsFrom.IsZero() })
	slices.SortFunc(timed, func(a, b entry) int { return a.SignsFrom.Compare(b.SignsFrom) })
	return timed
}

// lastActive returns the place of the key that signs at now, or -1.
func lastActive(timed []entry, now time.Time) int {
	for i, e := range slices.Backward(timed) {
		if !e.SignsFrom.After(now) {
			return i
		}
	}
	return -1
}

// succeeded is the key at place i, with what follows from the one after it.
func succeeded(timed []entry, i int, state State) Key {
	k := timed[i].key(state)
	if i+1 < len(timed) {
		k.RetiredAt = timed[i+1].SignsFrom
		k.RemovedAt = k.RetiredAt.Add(linger)
	}
	return k
}

func (e entry) key(state State) Key {
	return Key{
		ID: e.ID, State: state, Bits: e.bits(), Public: e.public,
		Created: e.Created, Published: e.Published, SignsFrom: e.SignsFrom,
	}
}

func (e entry) bits() int { return e.public.N.BitLen() }

// activeAt returns the key that signs at now. It is asked for each assertion, and
// so does without the list of all states.
func (m manifest) activeAt(now time.Time) (kid string, ok bool) {
	var from time.Time
	for _, e := range m.Keys {
		if e.SignsFrom.After(from) && !e.SignsFrom.After(now) {
			kid, from = e.ID, e.SignsFrom
		}
	}
	return kid, !from.IsZero()
}

// nextChange returns when the next state of a key begins after now, or zero.
func (m manifest) nextChange(now time.Time) (next time.Time) {
	for _, k := range m.keysAt(now) {
		for _, t := range []time.Time{k.SignsFrom, k.RemovedAt} {
			if t.After(now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}
