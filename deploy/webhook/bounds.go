package webhook

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What callers can have the webhook hold. Anybody who reaches the port is one: few
// clusters have the API server show who it is. JSON of small objects takes up to
// sixty times its size once it is read, so that values are counted too; the sum
// stays below the memory limit of the chart.
const (
	maxReview = 3 << 20 // bytes of a request
	maxObject = 3 << 19 // bytes of the pod in it; etcd keeps no more of anything
	maxValues = 100_000 // in the pod
	small     = 64 << 10
	atOnce    = 16 // small requests; of larger ones one
	// Most connections, and requests on each.
	maxConnections = 128
	maxStreams     = 32
	maxHeader      = 8 << 10 // bytes
)

// How long a request may wait for its turn, which is no less than the API server
// waits by default, and how long it may then take to arrive and to be answered,
// so that a slow caller does not keep others out.
const (
	patience = 10 * time.Second
	turn     = 5 * time.Second
)

// rooms are the turns that requests take. Large ones have their own, so that they
// do not keep out the others, which are all that a cluster has in earnest.
type rooms struct{ small, large *semaphore.Weighted }

func newRooms() rooms {
	return rooms{small: semaphore.NewWeighted(atOnce), large: semaphore.NewWeighted(1)}
}

// enter waits for a turn. Whoever gets one calls leave.
func (r rooms) enter(ctx context.Context, length int64) (leave func(), err error) {
	room := r.small
	if length > small {
		room = r.large
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := room.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { room.Release(1) }, nil
}

// ServeHTTP implements [http.Handler]: it answers one AdmissionReview, of a size
// that is told before and bounded, once it is its turn.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.ContentLength < 0:
		h.turnAway(w, r, http.StatusLengthRequired, "it does not say its Content-Length")
		return
	case r.ContentLength > maxReview:
		h.turnAway(w, r, http.StatusRequestEntityTooLarge, fmt.Sprintf("it has %d bytes, and may have %d: make the pod smaller", r.ContentLength, maxReview))
		return
	}
	leave, err := h.rooms.enter(r.Context(), r.ContentLength)
	if err != nil {
		h.turnAway(w, r, http.StatusServiceUnavailable, "too many others are being answered: try again")
		return
	}
	defer leave()
	until, control := time.Now().Add(turn), http.NewResponseController(w)
	for _, set := range []func(time.Time) error{control.SetReadDeadline, control.SetWriteDeadline} {
		if err := set(until); err != nil {
			h.turnAway(w, r, http.StatusInternalServerError, "the connection takes no deadline")
			return
		}
	}
	body := bufio.NewReader(r.Body)
	if first, err := body.Peek(1); err != nil || first[0] != '{' { // else it would be read as YAML, which takes far more memory
		h.turnAway(w, r, http.StatusBadRequest, "it is no JSON object")
		return
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{&counted{body, 2 * maxValues}, r.Body}
	h.review.ServeHTTP(w, r)
}

// checkSize refuses a pod that would take too much once it is read.
func checkSize(pod []byte) error {
	if len(pod) > maxObject {
		return fmt.Errorf("the pod has %d bytes of JSON, and may have %d: make it smaller", len(pod), maxObject)
	}
	if n := countValues(pod); n > maxValues {
		return fmt.Errorf("the pod has %d values in its JSON, and may have %d: make it smaller", n, maxValues)
	}
	return nil
}

// countValues counts what looks like the begin of a value, in texts too: that is
// cheap, and the bound is a hundred times what pods have.
func countValues(raw []byte) (n int) {
	for _, c := range raw {
		if c == ',' || c == '{' || c == '[' {
			n++
		}
	}
	return n
}

// counted is the body of a request, which ends at too many values: those beside the
// pod take memory too.
type counted struct {
	io.Reader
	left int
}

var errValues = errors.New("webhook: the request has too many values")

// Read implements [io.Reader].
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if c.left -= countValues(p[:n]); c.left < 0 {
		return 0, errValues
	}
	return n, err
}

// turnAway refuses in the form from which the API server tells whoever creates the
// pod.
func (h *Handler) turnAway(w http.ResponseWriter, r *http.Request, status int, why string) {
	h.cfg.Logger.LogAttrs(r.Context(), slog.LevelWarn, "request turned away", slog.String("from", r.RemoteAddr), slog.Int("status", status), slog.String("error", why))
	body, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(status), Message: "svidecar cannot answer this request: " + why,
	})
	if err != nil {
		panic("webhook: internal error: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever is gone need not be told
}
