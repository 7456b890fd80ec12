package config

import (
	"fmt"
	"strconv"
	"strings"
)

// checkIdentities completes the listed identities. Without a list it wants the
// one tenant that all client ids are asked for in.
func (l *loader) checkIdentities() {
	if len(l.cfg.Identities) == 0 {
		l.checkUnlisted()
		return
	}
	seen := map[string]map[string]string{}
	for _, f := range identityFields {
		seen[f.name] = map[string]string{}
	}
	for i := range l.cfg.Identities {
		l.checkIdentity(i, seen)
	}
	l.chooseDefault()
}

const howTenant = "add --tenant-id, SVIDECAR_TENANT_ID or AZURE_TENANT_ID (which azure-workload-identity sets), or tenant-id in each of the identities"

func (l *loader) checkUnlisted() {
	if l.cfg.TenantID == "" {
		l.addf("tenant-id", "not set, so there is no tenant to get tokens from: %s", howTenant)
	}
	if len(l.cfg.Sources) > 1 && l.cfg.DefaultSource() == "" {
		l.addf(l.where("sources[0]"), "there are several sources and no identities to choose among them: name one of them %q, or list identities", DefaultSourceName)
	}
}

func identityPath(i int) string { return fmt.Sprintf("identities[%d]", i) }

// checkIdentity completes identity i. seen holds, per field, the paths of the
// values seen so far.
func (l *loader) checkIdentity(i int, seen map[string]map[string]string) {
	id, path := &l.cfg.Identities[i], identityPath(i)
	if id.ClientID == "" {
		l.addf(l.where(path), "no client-id: add that of the application or managed identity")
		return
	}
	l.fillTenant(id, path)
	l.fillSource(id, path)
	if id.Name == "" {
		id.Name = id.ClientID
		l.follow(path, "name", "derived from client-id")
	}
	if first, taken := seen["client-id"][id.ClientID+" "+id.TenantID]; taken {
		l.addf(l.where(path+".client-id"), "%s is already that of %s in the same tenant: correct one, or remove one of the entries", quote(id.ClientID), l.mention(first))
		return // the name, if derived, would only repeat this
	}
	seen["client-id"][id.ClientID+" "+id.TenantID] = path + ".client-id"
	l.unique(path+".name", id.Name, seen["name"])
	l.unique(path+".object-id", id.ObjectID, seen["object-id"])
	l.unique(path+".resource-id", id.ResourceID, seen["resource-id"])
}

func (l *loader) fillTenant(id *Identity, path string) {
	if id.TenantID != "" {
		return
	}
	if id.TenantID = l.cfg.TenantID; id.TenantID == "" {
		l.addf(l.where(path), "no tenant: %s", howTenant)
		return
	}
	l.follow(path, "tenant-id", "derived from tenant-id")
}

func (l *loader) fillSource(id *Identity, path string) {
	if id.Source != "" {
		l.checkSourceName(id.Source, path+".source")
		return
	}
	if id.Source = l.cfg.DefaultSource(); id.Source != "" {
		l.follow(path, "source", "derived from sources")
		return
	}
	if len(l.cfg.Sources) > 0 { // that there is none at all is said once
		l.addf(l.where(path), "no source, and there are several: add source, one of %s", strings.Join(l.sourceNames(), ", "))
	}
}

func (l *loader) checkSourceName(name, path string) {
	names := l.sourceNames()
	for _, n := range names {
		if n == name {
			return
		}
	}
	l.addf(l.where(path), "no source is called %s%s", quote(name), didYouMean(name, names, "add it to sources, or correct the name"))
}

func (l *loader) sourceNames() []string {
	var names []string
	for _, s := range l.cfg.Sources {
		names = append(names, s.Name)
	}
	return names
}

// chooseDefault marks at most one identity: the one marked in the file, else
// the one that client-id names, else the only one.
func (l *loader) chooseDefault() {
	marked, ok := l.markedDefault()
	if !ok {
		return
	}
	if l.cfg.ClientID != "" && !l.outranked(marked) {
		l.chooseByClientID(marked)
		return
	}
	if marked < 0 && len(l.cfg.Identities) == 1 {
		l.markDefault(0, "default: the only one")
	}
}

// markedDefault gives the identity that the file marks, or -1.
func (l *loader) markedDefault() (marked int, ok bool) {
	marked = -1
	for i, id := range l.cfg.Identities {
		switch {
		case !id.Default:
		case marked >= 0:
			l.addf(l.where(identityPath(i)+".default"), "%s is the default already: mark one of them only", l.mention(identityPath(marked)))
			return 0, false
		default:
			marked = i
		}
	}
	return marked, true
}

// outranked drops a client-id that only surrounds us, where the list was written
// for svidecar and says otherwise: the webhook sets AZURE_CLIENT_ID in every pod
// of its service accounts, and nobody could take it away again.
func (l *loader) outranked(marked int) bool {
	if l.cfg.from["client-id"].explicit() || len(l.withClientID()) > 0 && marked < 0 {
		return false
	}
	l.cfg.ClientID = ""
	l.cfg.from["client-id"] = origin{text: "dropped by identities: env AZURE_CLIENT_ID"}
	return true
}

// chooseByClientID reconciles client-id with the list and its mark.
func (l *loader) chooseByClientID(marked int) {
	candidates := l.withClientID()
	switch {
	case len(candidates) == 0:
		l.addf(l.where("client-id"), "%s is none of the identities: add it to them, or remove client-id", quote(l.cfg.ClientID))
	case marked >= 0 && l.cfg.Identities[marked].ClientID != l.cfg.ClientID:
		l.addf(l.where("client-id"), "%s contradicts %s, which marks %s as the default: remove one of them",
			quote(l.cfg.ClientID), l.mention(identityPath(marked)+".default"), quote(l.cfg.Identities[marked].Name))
	case marked >= 0:
	case len(candidates) == 1:
		l.markDefault(candidates[0], "derived from client-id")
	default:
		l.addf(l.where("client-id"), "%s is the client id of %s identities, in different tenants: mark one of them with default: true",
			quote(l.cfg.ClientID), strconv.Itoa(len(candidates)))
	}
}

// withClientID gives the identities that client-id names: all of that client
// id, or the one of them that is in the top-level tenant too.
func (l *loader) withClientID() []int {
	var all []int
	for i, id := range l.cfg.Identities {
		if id.ClientID != l.cfg.ClientID {
			continue
		}
		if id.TenantID == l.cfg.TenantID {
			return []int{i}
		}
		all = append(all, i)
	}
	return all
}

func (l *loader) markDefault(i int, why string) {
	l.cfg.Identities[i].Default = true
	l.follow(identityPath(i), "default", why)
}
