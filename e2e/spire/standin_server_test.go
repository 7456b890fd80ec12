//go:build linux

package spire_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// caServer stands in for spire-server: a registry, and keys in the states that
// `localauthority` moves them through.
type caServer struct {
	conf map[string]string
	life time.Duration

	mu       sync.Mutex
	keys     []*jwtKey // in the bundle
	active   *jwtKey
	prepared *jwtKey
	old      *jwtKey
	tokens   map[string]bool  // join tokens; true once used
	entries  map[string]entry // by id
}

type jwtKey struct {
	kid     string
	private crypto.Signer
	tainted bool
}

type entry struct {
	Parent   string
	ID       string
	Selector string
}

// state is what an agent syncs.
type state struct {
	Entries []entry
	Keys    jose.JSONWebKeySet
	Tainted []string
}

func standInServer(args []string) error {
	words, set, err := options(args, "config")
	if err != nil || len(words) != 1 || words[0] != "run" {
		return standInCommand(args)
	}
	conf, err := readConf(set["config"])
	if err != nil {
		return err
	}
	s := &caServer{conf: conf, tokens: map[string]bool{}, entries: map[string]entry{}}
	if s.life, err = time.ParseDuration(conf["default_jwt_svid_ttl"]); err != nil {
		return err
	}
	if s.active, err = s.newKey(); err != nil {
		return err
	}
	return s.serve()
}

func (s *caServer) newKey() (key *jwtKey, err error) {
	key = &jwtKey{kid: rand.Text()}
	if s.conf["jwt_key_type"] == "rsa-2048" {
		key.private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	s.keys = append(s.keys, key)
	return key, err
}

func (s *caServer) serve() error {
	commands, err := net.Listen("unix", s.conf["socket_path"])
	if err != nil {
		return err
	}
	agents, err := net.Listen("tcp", net.JoinHostPort(s.conf["bind_address"], s.conf["bind_port"]))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.routes()}
	for _, l := range []net.Listener{commands, agents} {
		go func() { _ = server.Serve(l) }()
	}
	<-terminated()
	return server.Close()
}

func (s *caServer) routes() http.Handler {
	mux := http.NewServeMux()
	for path, reply := range map[string]func(get func(string) string) (any, error){
		"/healthcheck":                 func(func(string) string) (any, error) { return struct{}{}, nil },
		"/token/generate":              s.generateToken,
		"/entry/create":                s.createEntry,
		"/entry/delete":                s.deleteEntry,
		"/localauthority/jwt/show":     s.showAuthorities,
		"/localauthority/jwt/prepare":  s.prepareAuthority,
		"/localauthority/jwt/activate": s.activateAuthority,
		"/localauthority/jwt/taint":    s.taintAuthority,
		"/localauthority/jwt/revoke":   s.revokeAuthority,
		"/agent/attest":                s.attest,
		"/agent/state":                 s.state,
		"/agent/svid":                  s.sign,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			defer s.mu.Unlock()
			body, err := reply(r.URL.Query().Get)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_ = json.NewEncoder(w).Encode(body)
		})
	}
	mux.HandleFunc("/bundle/show", func(w http.ResponseWriter, _ *http.Request) {
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: []byte("no real one")})
	})
	return mux
}

type object = map[string]any

func (s *caServer) generateToken(func(string) string) (any, error) {
	token := rand.Text()
	s.tokens[token] = false
	return object{"value": token, "expires_at": "0"}, nil
}

func (s *caServer) attest(get func(string) string) (any, error) {
	used, ok := s.tokens[get("token")]
	if !ok || used {
		return nil, errors.New("join token is unknown or used")
	}
	s.tokens[get("token")] = true
	return struct{}{}, nil
}

func (s *caServer) createEntry(get func(string) string) (any, error) {
	if _, ok := s.tokens[strings.TrimPrefix(get("parentID"), "spiffe://"+s.conf["trust_domain"]+"/spire/agent/join_token/")]; !ok {
		return object{"results": []object{{"status": object{"code": 3, "message": "no such parent"}}}}, nil
	}
	id := rand.Text()
	s.entries[id] = entry{get("parentID"), get("spiffeID"), get("selector")}
	return object{"results": []object{{"status": object{"code": 0, "message": "OK"}, "entry": object{"id": id}}}}, nil
}

func (s *caServer) deleteEntry(get func(string) string) (any, error) {
	delete(s.entries, get("entryID"))
	return object{"results": []object{{"status": object{"code": 0, "message": "OK"}, "id": get("entryID")}}}, nil
}

func (s *caServer) showAuthorities(func(string) string) (any, error) {
	reply := object{}
	for name, key := range map[string]*jwtKey{"active": s.active, "prepared": s.prepared, "old": s.old} {
		if key != nil {
			reply[name] = object{"authority_id": key.kid, "expires_at": "0"}
		}
	}
	return reply, nil
}

func (s *caServer) prepareAuthority(func(string) string) (any, error) {
	key, err := s.newKey()
	s.prepared = key
	return object{"prepared_authority": object{"authority_id": key.kid, "expires_at": "0"}}, err
}

func (s *caServer) activateAuthority(get func(string) string) (any, error) {
	if s.prepared == nil || s.prepared.kid != get("authorityID") {
		return nil, errors.New("unexpected authority ID")
	}
	s.old, s.active, s.prepared = s.active, s.prepared, nil
	return object{"activated_authority": object{"authority_id": s.active.kid}}, nil
}

func (s *caServer) taintAuthority(get func(string) string) (any, error) {
	if s.old == nil || s.old.kid != get("authorityID") {
		return nil, errors.New("only the old authority can be tainted")
	}
	s.old.tainted = true
	return object{"tainted_authority": object{"authority_id": s.old.kid}}, nil
}

func (s *caServer) revokeAuthority(get func(string) string) (any, error) {
	if s.old == nil || s.old.kid != get("authorityID") || !s.old.tainted {
		return nil, errors.New("only an old authority that is tainted can be revoked")
	}
	kept := s.keys[:0]
	for _, key := range s.keys {
		if key != s.old {
			kept = append(kept, key)
		}
	}
	s.keys, s.old = kept, nil
	return object{"revoked_authority": object{"authority_id": get("authorityID")}}, nil
}

// state serves agents, and the provider over the other socket.
func (s *caServer) state(func(string) string) (any, error) {
	var all state
	for _, e := range s.entries {
		all.Entries = append(all.Entries, e)
	}
	for _, key := range s.keys {
		all.Keys.Keys = append(all.Keys.Keys, jose.JSONWebKey{Key: key.private.Public(), KeyID: key.kid})
		if key.tainted {
			all.Tainted = append(all.Tainted, key.kid)
		}
	}
	return all, nil
}

// svid is a JWT-SVID with what an agent caches it by.
type svid struct {
	Token   string
	KeyID   string
	Renew   time.Time // half of its life
	Expires time.Time
}

func (s *caServer) sign(get func(string) string) (any, error) {
	algorithm := jose.ES256
	if _, ok := s.active.private.(*rsa.PrivateKey); ok {
		algorithm = jose.RS256
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: s.active.private, KeyID: s.active.kid}},
		new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		return nil, err
	}
	now := time.Now().Truncate(time.Second)
	claims := jwt.Claims{
		Issuer: s.conf["jwt_issuer"], Subject: get("id"), Audience: jwt.Audience{get("aud")},
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(s.life)),
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return svid{token, s.active.kid, now.Add(s.life / 2), now.Add(s.life)}, nil
}
