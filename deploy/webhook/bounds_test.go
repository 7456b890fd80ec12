package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/svidecar/svidecar/deploy/webhook"
)

// answer is a connection's end: it takes deadlines, as the server's does.
type answer struct {
	*httptest.ResponseRecorder
	read, write time.Time
}

func (a *answer) SetReadDeadline(t time.Time) error  { a.read = t; return nil }
func (a *answer) SetWriteDeadline(t time.Time) error { a.write = t; return nil }

// ask sends a body. What is declared to be there may be more.
func ask(ctx context.Context, h http.Handler, body io.Reader, length int64) *answer {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, webhook.Path, body)
	r.ContentLength = length
	r.Header.Set("Content-Type", "application/json")
	a := &answer{ResponseRecorder: httptest.NewRecorder()}
	h.ServeHTTP(a, r)
	return a
}

// reviewOf is what the API server sends of a pod that asks, padded to a size.
func reviewOf(t testing.TB, pad int) string {
	t.Helper()
	req := request(t, map[string]string{"svidecar.io/inject": "true", "other": strings.Repeat("x", pad)}, nil).AdmissionRequest
	raw, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: &req})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// unread fails the test if it is read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestReviewsAreBounded(t *testing.T) {
	whole := reader(namespace(), account("orders"))
	for _, tt := range []struct {
		name   string
		body   string
		length int64 // of the body that is not read
		status int
		want   string
	}{
		{"no length", "", -1, http.StatusLengthRequired, "Content-Length"},
		{"large", "", 3<<20 + 1, http.StatusRequestEntityTooLarge, "3145729 bytes, and may have 3145728"},
		{"empty", "", 0, http.StatusBadRequest, "no JSON object"},
		{"YAML", "kind: AdmissionReview", 0, http.StatusBadRequest, "no JSON object"},
		{"large pod", reviewOf(t, 3<<19), 0, http.StatusOK, "bytes of JSON, and may have 1572864: make it smaller"},
		{"pod with many values", strings.Replace(reviewOf(t, 0), `"spec":{`, `"spec":{"volumes":[`+strings.Repeat("{},", 50_000)+`{}],`, 1), 0, http.StatusOK, "values in its JSON, and may have 100000"},
		{"values beside the pod", strings.Replace(reviewOf(t, 0), `"request":{`, `"request":{"userInfo":{"groups":[`+strings.Repeat(`"",`, 200_000)+`""]},`, 1), 0, http.StatusOK, "too many values"},
		{"pod", reviewOf(t, 1<<20), 0, http.StatusOK, `"allowed":true`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{cached: whole, live: never{t}}
			var body io.Reader = strings.NewReader(tt.body)
			length := int64(len(tt.body))
			if tt.length != 0 {
				body, length = unread{t}, tt.length
			}
			a := ask(t.Context(), w.handler(t), body, length)
			if got := a.Body.String(); a.Code != tt.status || !strings.Contains(got, tt.want) {
				t.Errorf("status %d: %.300s; want %d with %q", a.Code, got, tt.status, tt.want)
			}
		})
	}
}

// stuck is a reader that waits until it is let go.
type stuck struct{ free chan struct{} }

func (s stuck) Get(ctx context.Context, _ client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	<-s.free
	return errDown
}

func (stuck) List(context.Context, client.ObjectList, ...client.ListOption) error { return errDown }

// TestReviewsTakeTurns: so many are worked on at once, and of large ones one; those
// that wait do not wait forever.
func TestReviewsTakeTurns(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		turns      int
	}{{"small", reviewOf(t, 0), 16}, {"large", reviewOf(t, 1<<17), 1}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := stuck{make(chan struct{})}
				w := &world{cached: s, live: s}
				h := w.handler(t)
				send := func(body string) *answer { return ask(t.Context(), h, strings.NewReader(body), int64(len(body))) }
				var all sync.WaitGroup
				for range tt.turns {
					all.Go(func() {
						if a := send(tt.body); a.Code != http.StatusOK {
							t.Errorf("status %d", a.Code)
						}
					})
				}
				synctest.Wait()
				begin := time.Now()
				if a := send(tt.body); a.Code != http.StatusServiceUnavailable || time.Since(begin) != 10*time.Second {
					t.Errorf("one more: status %d after %v, want %d after 10s", a.Code, time.Since(begin), http.StatusServiceUnavailable)
				}
				gone, leave := context.WithCancelCause(t.Context())
				leave(errors.New("the caller is gone"))
				begin = time.Now()
				if a := ask(gone, h, unread{t}, int64(len(tt.body))); a.Code != http.StatusServiceUnavailable || time.Since(begin) > 0 {
					t.Errorf("who does not wait: status %d after %v", a.Code, time.Since(begin))
				}
				close(s.free)
				all.Wait()
				if a := send(tt.body); a.Code != http.StatusOK {
					t.Errorf("afterwards: status %d", a.Code)
				}
			})
		})
	}
}

// TestOtherSizeHasItsTurn: large requests do not keep out small ones.
func TestOtherSizeHasItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large, small := reviewOf(t, 1<<17), reviewOf(t, 0)
		s := stuck{make(chan struct{})}
		w := &world{cached: s, live: s}
		h := w.handler(t)
		var all sync.WaitGroup
		all.Go(func() { ask(t.Context(), h, strings.NewReader(large), int64(len(large))) })
		synctest.Wait()
		all.Go(func() { ask(t.Context(), h, strings.NewReader(small), int64(len(small))) })
		synctest.Wait()
		time.Sleep(11 * time.Second) // more than anybody waits for a turn
		if log := w.log.String(); strings.Contains(log, "turned away") {
			t.Errorf("logged %s", log)
		}
		close(s.free)
		all.Wait()
	})
}

// TestTurnsEnd: who sends or reads slowly is cut off.
func TestTurnsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{cached: down{}, live: down{}}
		body := reviewOf(t, 0)
		a := ask(t.Context(), w.handler(t), strings.NewReader(body), int64(len(body)))
		if want := time.Now().Add(5 * time.Second); !a.read.Equal(want) || !a.write.Equal(want) {
			t.Errorf("deadlines %v and %v, want %v", a.read, a.write, want)
		}
	})
	w := &world{cached: never{t}, live: never{t}}
	rec := httptest.NewRecorder() // which takes none
	w.handler(t).ServeHTTP(rec, httptest.NewRequest(http.MethodPost, webhook.Path, strings.NewReader("{}")))
	if rec.Code != http.StatusInternalServerError {
		t.Errorf("without deadlines: status %d", rec.Code)
	}
}
