package main

import (
	"log/slog"
	"sync"
	"time"
)

// complaint writes one line a minute, since any local user can make the fetches
// that fail.
type complaint struct {
	log  *slog.Logger
	mu   sync.Mutex
	told time.Time
}

func (c *complaint) tell(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.told) < time.Minute {
		return
	}
	c.told = time.Now()
	c.log.Error("the Workload API had nothing to hand out", "error", err.Error())
}
