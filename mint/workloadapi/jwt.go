package workloadapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// pollKeys is how often a watcher's stream asks for the keys without Refresh.
const pollKeys = time.Minute

const unable = "the issuer cannot do this now; its log says why"

// FetchJWTSVID implements API, section 6.2.1, for one audience at a time.
func (s *Server) FetchJWTSVID(ctx context.Context, request *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	identities, err := s.entitled(ctx)
	if err != nil {
		return nil, err
	}
	audience, err := onlyAudience(request.GetAudience())
	if err != nil {
		return nil, err
	}
	if identities, err = chosen(identities, request.GetSpiffeId()); err != nil {
		return nil, err
	}
	set, err := s.keys()
	if err != nil {
		return nil, s.unavailable(err)
	}
	response := new(workload.JWTSVIDResponse)
	for _, identity := range identities {
		token, err := s.tokens.get(ctx, ask{identity.ID, audience}, set)
		if err != nil {
			return nil, notMinted(ctx)
		}
		response.Svids = append(response.Svids, &workload.JWTSVID{SpiffeId: identity.ID.String(), Hint: identity.Hint, Svid: token.value.Reveal()})
	}
	return response, nil
}

// onlyAudience refuses several, which JWT-SVID, section 6.2, advises against: each
// recipient could pass for the workload with the others.
func onlyAudience(audiences []string) (string, error) {
	switch {
	case len(audiences) == 0 || audiences[0] == "":
		return "", status.Error(codes.InvalidArgument, "audience is missing: name who the JWT-SVID is for")
	case len(audiences) > 1:
		return "", status.Errorf(codes.InvalidArgument, "%d audiences: ask for each by itself, since a JWT-SVID for several lets each of them pass for you with the others; Entra takes one only", len(audiences))
	case len(audiences[0]) > maxValue || strings.ContainsFunc(audiences[0], func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", status.Errorf(codes.InvalidArgument, "the audience is not up to %d printable ASCII characters", maxValue)
	}
	return audiences[0], nil
}

// entitled are the caller's identities, in the order of the configuration.
func (s *Server) entitled(ctx context.Context) ([]Identity, error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		panic("workloadapi: internal error: a call without a peer")
	}
	who := from.AuthInfo.(caller)
	var identities []Identity
	for _, identity := range s.cfg.Identities {
		if identity.UID == nil || who.user.known && who.user.uid == uint32(*identity.UID) {
			identities = append(identities, identity)
		}
	}
	switch {
	case len(identities) != 0:
		return identities, nil
	case !who.user.known:
		return nil, status.Error(codes.PermissionDenied, "no identity issued: the system does not say which user asks")
	}
	return nil, status.Errorf(codes.PermissionDenied, "no identity issued: user %d has none at this socket", who.user.uid)
}

// chosen is the identity called id, or all if id is empty. It does not tell what
// others have from what nobody has.
func chosen(identities []Identity, id string) ([]Identity, error) {
	if id == "" {
		return identities, nil
	}
	wanted, err := spiffeid.FromString(id)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "spiffe_id is not a SPIFFE ID")
	}
	for _, identity := range identities {
		if identity.ID == wanted {
			return []Identity{identity}, nil
		}
	}
	return nil, status.Error(codes.PermissionDenied, "no identity issued: you have others than the spiffe_id asked for; leave it out to see them")
}

// mint is what tokens calls. What was minted must be what was asked for, and must
// be verifiable by whoever has our bundle: a fault here is better than a refusal
// somewhere else.
func (s *Server) mint(ctx context.Context, a ask) (*token, error) {
	value, err := s.cfg.Mint(ctx, a.id, a.audience)
	if err != nil {
		return nil, err
	}
	set, err := s.keys()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	v, err := s.verify(value.Reveal(), a.audience, set, now)
	switch {
	case err != nil:
		return nil, fmt.Errorf("what was minted would be refused: %w; check that the key is in the published document, and the issuer", err)
	case v.id != a.id || len(v.claims.Audience) != 1:
		return nil, errors.New("internal error: what was minted is for another subject, or for more audiences")
	case v.claims.IssuedAt == nil:
		return nil, errors.New("internal error: what was minted has no iat")
	}
	issued, expiry := v.claims.IssuedAt.Time(), v.claims.Expiry.Time()
	minted := &token{value: value, kid: v.kid, notBefore: issued, renewal: issued.Add(expiry.Sub(issued) / 2), expiry: expiry}
	if v.claims.NotBefore != nil {
		minted.notBefore = v.claims.NotBefore.Time()
	}
	if !minted.usable(now) {
		return nil, errors.New("what was minted has expired or is not valid yet: check the clock")
	}
	return minted, nil
}

// notMinted answers for a token that could not be had; Fault has been told why,
// which the caller is not, since it may name files of ours.
func notMinted(ctx context.Context) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return status.Error(codes.Unavailable, unable)
}

func (s *Server) unavailable(err error) error {
	s.cfg.Fault(err)
	return status.Error(codes.Unavailable, unable)
}

// FetchJWTBundles implements API, section 6.2.2: at once, and again when the keys
// change.
func (s *Server) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	if _, err := s.entitled(stream.Context()); err != nil {
		return err
	}
	poll := time.NewTicker(pollKeys)
	defer poll.Stop()
	var sent []byte
	for {
		change := s.change() // before Keys is asked, so that no change falls between
		set, err := s.keys()
		if err != nil {
			return s.unavailable(err)
		}
		if !bytes.Equal(sent, set.jwks) {
			if err := stream.Send(s.bundles(set)); err != nil {
				return err
			}
			sent = set.jwks
		}
		select {
		case <-change:
		case <-poll.C:
		case <-s.stopping:
			return status.Error(codes.Unavailable, errClosed.Error())
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

func (s *Server) bundles(set *keySet) *workload.JWTBundlesResponse {
	response := &workload.JWTBundlesResponse{Bundles: map[string][]byte{}}
	for domain := range s.domains {
		response.Bundles[domain.IDString()] = set.jwks
	}
	return response
}

// ValidateJWTSVID implements API, section 6.2.3. No refusal shows what was sent.
func (s *Server) ValidateJWTSVID(ctx context.Context, request *workload.ValidateJWTSVIDRequest) (*workload.ValidateJWTSVIDResponse, error) {
	if _, err := s.entitled(ctx); err != nil {
		return nil, err
	}
	switch {
	case request.GetAudience() == "":
		return nil, status.Error(codes.InvalidArgument, "audience is missing: name yourself, as the JWT-SVID has to")
	case request.GetSvid() == "":
		return nil, status.Error(codes.InvalidArgument, "svid is missing")
	}
	set, err := s.keys()
	if err != nil {
		return nil, s.unavailable(err)
	}
	v, err := s.verify(request.GetSvid(), request.GetAudience(), set, time.Now())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the JWT-SVID is refused: %v", err)
	}
	claims, err := structpb.NewStruct(v.all)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "the JWT-SVID is refused: it has a claim that does not fit into an answer")
	}
	return &workload.ValidateJWTSVIDResponse{SpiffeId: v.id.String(), Claims: claims}, nil
}
