package mint

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
)

const maxShownEntries = 10 // of an agent's answer in a message

// inspect is a gRPC interceptor that chooses one entry of the agent's answer,
// refuses what Entra would refuse, and leaves only that entry for go-spiffe to
// parse. go-spiffe alone would take the first entry, or fail for the sake of one
// that nobody wants, and would say less of why.
func (w *Workload) inspect(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if err := invoke(ctx, method, request, reply, conn, opts...); err != nil {
		return err
	}
	response, ok := reply.(*workload.JWTSVIDResponse)
	if !ok {
		return nil
	}
	entry, refusal := w.choose(response.GetSvids())
	if refusal == nil {
		refusal = w.check(entry, time.Now())
	}
	if refusal != nil {
		return refusal
	}
	response.Svids = []*workload.JWTSVID{entry}
	return nil
}

// choose picks the entry that the configuration means. Of several entries with
// one hint the first counts, as the Workload API's specification wants it.
func (w *Workload) choose(entries []*workload.JWTSVID) (*workload.JWTSVID, *Error) {
	wanted := slices.DeleteFunc(slices.Clone(entries), func(e *workload.JWTSVID) bool {
		return w.cfg.Subject != "" && e.GetSpiffeId() != w.cfg.Subject || w.cfg.Hint != "" && e.GetHint() != w.cfg.Hint
	})
	switch {
	case len(entries) == 0:
		return nil, w.denied(nil, "the agent answered without any JWT-SVID")
	case len(wanted) == 0 && w.cfg.Hint != "":
		return nil, w.denied(nil, fmt.Sprintf("no identity has the hint %s; there are %s", shown(w.cfg.Hint), listed(entries)))
	case len(wanted) == 0:
		return nil, w.denied(nil, fmt.Sprintf("the agent answered without the subject %s; there are %s", shown(w.cfg.Subject), listed(entries)))
	}
	if w.cfg.Hint == "" && slices.ContainsFunc(wanted, func(e *workload.JWTSVID) bool { return e.GetSpiffeId() != wanted[0].GetSpiffeId() }) {
		return nil, w.refuse(Claims{}, nil, false, "several identities are issued to this process: "+listed(entries),
			"choose one: set the source's subject to its SPIFFE ID, or the source's hint to its hint")
	}
	return wanted[0], nil
}

// listed names entries by SPIFFE ID and hint.
func listed(entries []*workload.JWTSVID) string {
	var parts []string
	for i, e := range entries {
		if i == maxShownEntries {
			parts = append(parts, fmt.Sprintf("and %d more", len(entries)-i))
			break
		}
		part := shown(e.GetSpiffeId())
		if e.GetHint() != "" {
			part += " (hint " + shown(e.GetHint()) + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// check refuses what Entra would refuse, and names what mends it. SPIRE's
// defaults fail twice here: its keys are ES256, and it writes no iss.
func (w *Workload) check(entry *workload.JWTSVID, now time.Time) *Error {
	c, err := parse(entry.GetSvid())
	if err != nil {
		return w.unreadable(err)
	}
	if b := breachOf(c, now); b != nil {
		return w.refuse(c, b.cause, b.temporary, b.problem, spireAdvice[b.rule])
	}
	return w.checkNames(c, entry.GetSpiffeId())
}

// spireAdvice mends each breach, in the SPIRE server's configuration if it can.
var spireAdvice = map[rule]string{
	ruleAlgorithm: `set jwt_key_type = "rsa-2048" in the SPIRE server's configuration and restart it; its next JWT key is then RSA`,
	ruleKeyID:     "SPIRE always writes one: check what serves the Workload API, and upgrade it",
	ruleType:      "SPIRE always writes JWT: check what serves the Workload API, and upgrade it",
	ruleIssuer:    "set jwt_issuer in the SPIRE server's configuration to the https URL of the issuer that the federated credential names, and restart it",
	ruleIssuedAt:  "SPIRE writes one unless a CredentialComposer plugin of the server removes it: check the plugins",
	ruleExpiry:    "check what serves the Workload API",
	ruleUnexpired: "check that the agent reaches its server, without which it hands out what it has, and that the clocks of this machine and of the SPIRE server agree",
	ruleBegun:     "check that the clocks of this machine and of the SPIRE server agree",
	ruleLife:      "lower default_jwt_svid_ttl in the SPIRE server's configuration, or the JWT-SVID TTL of the registration entry",
}

// checkNames holds the audience and the subject to what was asked for.
func (w *Workload) checkNames(c Claims, id string) *Error {
	switch {
	case len(c.Audience) != 1 || c.Audience[0] != w.cfg.Audience:
		return w.unfit(c, fmt.Sprintf("the audience is %s, want %s alone", shownList(c.Audience), shown(w.cfg.Audience)),
			"SPIRE writes what is asked for unless a CredentialComposer plugin of the server changes it: check the plugins")
	case c.Subject != id:
		return w.refuse(c, malformed("sub is not the SPIFFE ID"), false, fmt.Sprintf("the agent calls it %s, but its sub is %s", shown(id), shown(c.Subject)),
			"check what serves the Workload API")
	}
	if _, err := spiffeid.FromString(c.Subject); err != nil {
		return w.refuse(c, malformed("sub is no SPIFFE ID"), false, "its sub is no SPIFFE ID: "+shown(c.Subject),
			"check what serves the Workload API")
	}
	return nil
}

// verify holds the token against the bundle that the agent trusts. It is fetched
// after the token, so that the key of the token can be in it.
func (w *Workload) verify(ctx context.Context, client *workloadapi.Client, raw string, c Claims) error {
	bundles, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return w.explain(err)
	}
	domain := spiffeid.RequireFromString(c.Subject).TrustDomain() // inspect has parsed it
	bundle, ok := bundles.Get(domain)
	if !ok {
		return w.unfit(c, "the agent has no bundle of its trust domain "+shown(domain.Name()), "check what serves the Workload API")
	}
	if _, ok := bundle.FindJWTAuthority(c.KeyID); !ok {
		return w.refuse(c, nil, true, fmt.Sprintf("the agent's bundle has no key of this kid (%v)", c),
			"a new key reaches the agent within seconds; if it does not, check that the agent reaches its server")
	}
	if _, err := jwtsvid.ParseAndValidate(raw, bundle, []string{w.cfg.Audience}); err != nil {
		return w.unfit(c, "the signature does not fit the key of the agent's bundle", "do not trust this socket before you know what serves it")
	}
	return nil
}

// unfit is for a token that no repetition of the call will mend.
func (w *Workload) unfit(c Claims, problem, advice string) *Error {
	return w.refuse(c, nil, false, fmt.Sprintf("%s (%v)", problem, c), advice)
}

// unreadable drops what a parser says of a token, since it may quote it.
func (w *Workload) unreadable(err error) *Error {
	return w.refuse(Claims{}, err, false, "the agent answered with no JWT-SVID: "+err.Error(), "check what serves the Workload API")
}

func (w *Workload) refuse(c Claims, cause error, temporary bool, problem, advice string) *Error {
	return &Error{
		Claims:    c,
		text:      fmt.Sprintf("mint: Workload API %q: %s; %s", w.cfg.Address, problem, advice),
		temporary: temporary,
		cause:     cause,
	}
}
