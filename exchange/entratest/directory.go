package entratest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Entra's limits on federated identity credentials.
const (
	maxCredentials     = 20
	maxCredentialChars = 600
)

// FederatedCredential is the triple that an application trusts. Entra compares
// each byte for byte, letter case and trailing slash included.
type FederatedCredential struct {
	Issuer   string `json:"issuer"`   // an https URL
	Subject  string `json:"subject"`  // the assertion's sub
	Audience string `json:"audience"` // the assertion's aud
}

// App is an application, or a user-assigned managed identity, in a tenant.
type App struct {
	ClientID string `json:"client_id"` // GUID, required, unique
	TenantID string `json:"tenant_id"` // GUID, required; the tenant exists because an App is in it
	ObjectID string `json:"object_id"` // GUID of the service principal; empty: a random one
	Name     string `json:"name"`      // display name; empty: the client id
	// Credentials are at most 20, each (issuer, subject) at most once, each
	// value 1 to 600 characters.
	Credentials []FederatedCredential `json:"credentials"`
}

// directory holds the apps by client id in lower case.
type directory struct {
	mu   sync.Mutex
	apps map[string]*App
}

// SetApps replaces all apps. It returns an error, and changes nothing, if one
// is not valid.
func (s *Server) SetApps(apps []App) error { return s.dir.set(apps) }

// Apps returns a copy of all apps in order of client id.
func (s *Server) Apps() []App { return s.dir.list() }

// AddCredential adds a federated credential to an app. It takes effect at
// once; at Entra it takes seconds to minutes.
func (s *Server) AddCredential(clientID string, c FederatedCredential) error {
	return s.dir.update(clientID, func(have []FederatedCredential) ([]FederatedCredential, error) {
		next := append(slices.Clone(have), c)
		return next, checkCredentials(next)
	})
}

// RemoveCredential removes an app's federated credential. It returns an error
// if the app has no such credential.
func (s *Server) RemoveCredential(clientID string, c FederatedCredential) error {
	return s.dir.update(clientID, func(have []FederatedCredential) ([]FederatedCredential, error) {
		i := slices.Index(have, c)
		if i < 0 {
			return nil, fmt.Errorf("entratest: app %q has no such federated credential", clientID)
		}
		return slices.Delete(slices.Clone(have), i, i+1), nil
	})
}

func (d *directory) set(apps []App) error {
	next := make(map[string]*App, len(apps))
	for _, app := range apps {
		if err := checkApp(app); err != nil {
			return err
		}
		id := strings.ToLower(app.ClientID)
		if next[id] != nil {
			return fmt.Errorf("entratest: app %q is given twice", app.ClientID)
		}
		app.Credentials = slices.Clone(app.Credentials)
		if app.ObjectID == "" {
			app.ObjectID = newGUID()
		}
		if app.Name == "" {
			app.Name = app.ClientID
		}
		next[id] = &app
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.apps = next
	return nil
}

func (d *directory) list() []App {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]App, 0, len(d.apps))
	for _, app := range d.apps {
		all = append(all, app.clone())
	}
	slices.SortFunc(all, func(a, b App) int { return strings.Compare(a.ClientID, b.ClientID) })
	return all
}

func (d *directory) update(clientID string, change func([]FederatedCredential) ([]FederatedCredential, error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	app := d.apps[strings.ToLower(clientID)]
	if app == nil {
		return fmt.Errorf("entratest: no app %q", clientID)
	}
	next, err := change(app.Credentials)
	if err != nil {
		return err
	}
	app.Credentials = next
	return nil
}

// find returns a copy of the app in the tenant.
func (d *directory) find(tenant, clientID string) (*App, *refusal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	app := d.apps[strings.ToLower(clientID)]
	if app == nil || !strings.EqualFold(app.TenantID, tenant) {
		return nil, refuse(700016)
	}
	found := app.clone()
	return &found, nil
}

func (d *directory) hasTenant(tenant string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, app := range d.apps {
		if strings.EqualFold(app.TenantID, tenant) {
			return true
		}
	}
	return false
}

func (a *App) clone() App {
	c := *a
	c.Credentials = slices.Clone(a.Credentials)
	return c
}

// match finds the credential for the assertion. cloud is the audience of the
// emulator's cloud.
func (a *App) match(set claimSet, cloud string) *refusal {
	if len(a.Credentials) == 0 {
		return refuse(70025)
	}
	left := a.Credentials
	for _, part := range []struct {
		name, have string
		of         func(FederatedCredential) string
		code       int
	}{
		{"issuer", set.issuer, func(c FederatedCredential) string { return c.Issuer }, 700211},
		{"subject", set.subject, func(c FederatedCredential) string { return c.Subject }, 700213},
		{"audience", set.audience, func(c FederatedCredential) string { return c.Audience }, 700212},
	} {
		exact, folded := narrow(left, part.of, part.have)
		if len(exact) == 0 {
			code := part.code
			if folded {
				code = 7002138
			}
			return refuse(code, "{name}", part.name, "{issuer}", set.issuer,
				"{subject}", set.subject, "{audience}", set.audience)
		}
		left = exact
	}
	if set.audience != cloud && slices.Contains(cloudAudiences, set.audience) {
		return refuse(900382)
	}
	return nil
}

// narrow returns the credentials whose part is value, and whether any is so
// but for letter case.
func narrow(creds []FederatedCredential, part func(FederatedCredential) string, value string) (exact []FederatedCredential, folded bool) {
	for _, c := range creds {
		switch {
		case part(c) == value:
			exact = append(exact, c)
		case strings.EqualFold(part(c), value):
			folded = true
		}
	}
	return exact, folded
}

func checkApp(app App) error {
	switch {
	case !isGUID(app.ClientID):
		return fmt.Errorf("entratest: client id %q is not a GUID", app.ClientID)
	case !isGUID(app.TenantID):
		return fmt.Errorf("entratest: tenant id %q is not a GUID", app.TenantID)
	case app.ObjectID != "" && !isGUID(app.ObjectID):
		return fmt.Errorf("entratest: object id %q is not a GUID", app.ObjectID)
	}
	if err := checkCredentials(app.Credentials); err != nil {
		return fmt.Errorf("%w (app %q)", err, app.ClientID)
	}
	return nil
}

func checkCredentials(creds []FederatedCredential) error {
	if len(creds) > maxCredentials {
		return fmt.Errorf("entratest: %d federated credentials, above the limit of %d", len(creds), maxCredentials)
	}
	seen := map[[2]string]bool{}
	for _, c := range creds {
		if err := checkCredential(c); err != nil {
			return err
		}
		key := [2]string{c.Issuer, c.Subject}
		if seen[key] {
			return fmt.Errorf("entratest: issuer %q and subject %q are in two federated credentials", c.Issuer, c.Subject)
		}
		seen[key] = true
	}
	return nil
}

func checkCredential(c FederatedCredential) error {
	for _, v := range []struct{ name, value string }{{"issuer", c.Issuer}, {"subject", c.Subject}, {"audience", c.Audience}} {
		if n := utf8.RuneCountInString(v.value); n == 0 || n > maxCredentialChars {
			return fmt.Errorf("entratest: the %s of a federated credential has %d characters, want 1 to %d", v.name, n, maxCredentialChars)
		}
	}
	if !strings.HasPrefix(c.Issuer, "https://") {
		return errors.New("entratest: the issuer of a federated credential is not an https URL")
	}
	return nil
}
