package main

import (
	"time"

	"github.com/svidecar/svidecar/mint/keydir"
)

// forgotten is how long a key may wait to be published before that is a fault.
const forgotten = 2 * time.Hour

// tellForgotten complains in each round of a key that others have to publish.
func (k *keeper) tellForgotten() {
	for _, key := range k.dir.Keys() {
		if k.publish == nil && key.State == keydir.Pending && time.Since(key.Created) > forgotten {
			k.log.Warn("a key waits to be published, and never signs before: run svidecar keys export and upload the documents",
				"kid", key.ID, "created", key.Created)
		}
	}
}

// tellStates writes one line for each key whose state has changed.
func (k *keeper) tellStates() {
	now := map[string]keydir.State{}
	for _, key := range k.dir.Keys() {
		now[key.ID] = key.State
		if state, known := k.told[key.ID]; !known || state != key.State {
			args := []any{"kid", key.ID, "state", key.State.String()}
			if !key.SignsFrom.IsZero() {
				args = append(args, "signs_from", key.SignsFrom)
			}
			if !key.RemovedAt.IsZero() {
				args = append(args, "leaves", key.RemovedAt)
			}
			k.log.Info("signing key", args...)
		}
	}
	for id := range k.told {
		if _, there := now[id]; !there {
			k.log.Info("signing key", "kid", id, "state", "removed")
		}
	}
	k.told = now
}

// tellTrouble complains once of each trouble, since it is met again and again.
func (k *keeper) tellTrouble(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != k.last {
		k.log.Error("the keys cannot be kept as they should: the one that signs goes on, and no other takes over", "dir", k.dir.Path(), "error", text)
	}
	k.last = text
}
