package mint

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// explain says what an error of the client means. Those of inspect and verify
// say it themselves.
func (w *Workload) explain(err error) *Error {
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal
	}
	if w.base.Err() != nil {
		return w.closed()
	}
	answer, ok := status.FromError(err)
	if !ok { // go-spiffe could not parse what inspect let pass; its text may quote
		return w.refuse(Claims{}, malformed("go-spiffe refuses it"), false, "the agent's answer is not what the SPIFFE standards want",
			"check what serves the Workload API")
	}
	text := foreignText(errors.New(answer.Message()))
	switch answer.Code() {
	case codes.PermissionDenied:
		return w.denied(err, fmt.Sprintf("the agent issues no such identity to this process (%s)", text))
	case codes.Unavailable:
		return w.refuse(Claims{}, err, true, "unavailable ("+text+")",
			"check that the SPIRE agent runs on this machine and reaches its server, that its socket is mounted here, and that the address is right")
	case codes.InvalidArgument:
		return w.refuse(Claims{}, err, false, fmt.Sprintf("the agent refuses the request (%s)", text),
			"check the source's audience and subject")
	case codes.DeadlineExceeded:
		return w.refuse(Claims{}, err, true, fmt.Sprintf("no answer within %v (%s)", fetchTimeout, text),
			"the SPIRE agent, or the server behind it, hangs: look at their logs and load")
	case codes.Unimplemented:
		return w.refuse(Claims{}, err, false, "no Workload API is served there ("+text+")",
			"check that the address is that of the agent's Workload API, not of its admin or server API")
	}
	return w.refuse(Claims{}, err, true, fmt.Sprintf("the agent answered %v (%s)", answer.Code(), text),
		"look at the SPIRE agent's log")
}

// denied is for an identity that somebody may be about to register, or that
// the agent issued before and has lost for a while.
func (w *Workload) denied(cause error, problem string) *Error {
	advice := "check that a registration entry has selectors that fit this process (in a pod its namespace and service account) and this machine's agent as its parent"
	if w.cfg.Subject != "" {
		advice += fmt.Sprintf(", and that its SPIFFE ID is %s", shown(w.cfg.Subject))
	}
	temporary := true
	switch {
	case w.worked.Load():
		advice = "it did before; if it does not again soon, " + advice
	case time.Now().Before(w.graceUntil):
		advice = fmt.Sprintf("it may still do so within %v of the start; if it does not, %s", w.cfg.StartupGrace, advice)
	default:
		temporary = false
	}
	return w.refuse(Claims{}, cause, temporary, problem, advice)
}

func (w *Workload) closed() *Error {
	return w.refuse(Claims{}, errClosed, false, errClosed.Error(), "svidecar is stopping")
}
