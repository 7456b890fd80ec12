package exchange

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// errCrowded says that too many exchanges wait already.
var errCrowded = errors.New("exchange: too many exchanges wait")

// queue hands out a bounded number of slots. Those who wait are served in turn
// by identity, and by time within one, so that an identity that asks for a
// thousand resources at once delays another's one by no more than a slot; and no
// identity holds more than its share, so that one that hangs leaves room.
type queue struct {
	share int // most slots of one identity
	most  int // most waiters

	mu      sync.Mutex
	free    int
	held    map[identity]int
	waiting map[identity]*list.List // of chan struct{}, closed when served
	turn    *list.List              // of identity, each that waits once
	length  int
}

func newQueue(slots, most int) *queue {
	return &queue{
		share: max(1, slots*3/4), most: most, free: slots,
		held: map[identity]int{}, waiting: map[identity]*list.List{}, turn: list.New(),
	}
}

// acquire waits for a slot. Its errors are errCrowded and ctx's.
func (q *queue) acquire(ctx context.Context, id identity) error {
	q.mu.Lock()
	if q.free > 0 && q.held[id] < q.share && q.waiting[id] == nil {
		q.take(id)
		q.mu.Unlock()
		return nil
	}
	if q.length >= q.most {
		q.mu.Unlock()
		return errCrowded
	}
	served := q.join(id)
	q.mu.Unlock()
	select {
	case <-served:
		return nil
	case <-ctx.Done():
		q.leave(id, served)
		return ctx.Err()
	}
}

func (q *queue) take(id identity) {
	q.free--
	q.held[id]++
}

// release gives a slot back, and with it whoever's turn it is goes.
func (q *queue) release(id identity) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free++
	if q.held[id]--; q.held[id] == 0 {
		delete(q.held, id)
	}
	q.serve()
}

func (q *queue) join(id identity) chan struct{} {
	if q.waiting[id] == nil {
		q.waiting[id] = list.New()
		q.turn.PushBack(id)
	}
	served := make(chan struct{})
	q.waiting[id].PushBack(served)
	q.length++
	return served
}

// leave takes back a place, or the slot if it came in the same moment.
func (q *queue) leave(id identity, served chan struct{}) {
	q.mu.Lock()
	select {
	case <-served:
		q.mu.Unlock()
		q.release(id)
		return
	default:
	}
	defer q.mu.Unlock()
	for e := q.waiting[id].Front(); e != nil; e = e.Next() {
		if e.Value == served {
			q.waiting[id].Remove(e)
			q.length--
			break
		}
	}
	q.tidy(id)
}

// serve hands free slots to the identities in turn.
func (q *queue) serve() {
	for e := q.turn.Front(); e != nil && q.free > 0; {
		next := e.Next()
		id := e.Value.(identity)
		if q.held[id] < q.share {
			first := q.waiting[id].Front()
			q.waiting[id].Remove(first)
			q.length--
			q.take(id)
			close(first.Value.(chan struct{}))
			q.turn.MoveToBack(e)
			q.tidy(id)
		}
		e = next
	}
}

// tidy forgets an identity that no longer waits.
func (q *queue) tidy(id identity) {
	if q.waiting[id].Len() > 0 {
		return
	}
	delete(q.waiting, id)
	for e := q.turn.Front(); e != nil; e = e.Next() {
		if e.Value == id {
			q.turn.Remove(e)
			return
		}
	}
}

// waits is how many wait.
func (q *queue) waits() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.length
}
