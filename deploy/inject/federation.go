package inject

import (
	"fmt"
	"path"
	"slices"

	"github.com/svidecar/svidecar/internal/config"
)

// Where azure-workload-identity's webhook puts the token; apps have the path in
// their own settings.
const (
	federationVolume = "azure-identity-token"
	federationDir    = "/var/run/secrets/azure/tokens"
	federationFile   = "azure-identity-token"
)

// usesFederation reports whether the pod wants what azure-workload-identity's
// webhook gives.
func (m *mutation) usesFederation() bool {
	value, given := m.pod.strings("metadata", "labels")[keyUse]
	if given && value != "true" && value != "false" {
		m.warnf(`label %s: %s does nothing: it may be "true"`, keyUse, quote(value))
	}
	return value == "true"
}

// addFederation gives the app's containers a token and the variables that SDKs
// read it by. Our own containers get none of it: the sidecar has its own, and
// the redirection, which is root, needs none.
func (m *mutation) addFederation(w wish) error {
	if err := m.refuseForm(); err != nil {
		return err
	}
	account, err := m.account()
	if err != nil {
		return err
	}
	cfg, err := m.cloud()
	if err != nil {
		return err
	}
	if account.tenant == "" {
		account.tenant = m.cfg.TenantID
	}
	if account.tenant == "" {
		return fmt.Errorf("label %s: no tenant: set annotation %s of the service account, or the installation's tenant", keyUse, keyTenantID)
	}
	m.warnOfNames(theirs+"skip-containers", w.skipUse)
	m.addFederationVolume(cfg.Audience, w.expiration)
	for _, c := range m.pod.users() {
		if slices.Contains(w.skipUse, c.name()) {
			continue
		}
		for _, v := range [][2]string{
			{"AZURE_CLIENT_ID", account.client}, {"AZURE_TENANT_ID", account.tenant},
			{"AZURE_FEDERATED_TOKEN_FILE", path.Join(federationDir, federationFile)}, {"AZURE_AUTHORITY_HOST", cfg.AuthorityHost},
		} {
			if v[1] != "" && !c.has(v[0]) {
				m.addVariable(c, v[0], v[1])
			}
		}
		m.addFederationMount(c)
	}
	return nil
}

// cloud is what the installation's cloud stands for.
func (m *mutation) cloud() (*config.Config, error) {
	var environ []string
	for _, s := range m.cfg.settings() {
		environ = append(environ, variable(s.name)+"="+s.value)
	}
	cfg, err := config.LoadPart(nil, environ)
	if err != nil {
		return nil, fmt.Errorf("inject: Config: %w", err)
	}
	return cfg, nil
}

func (m *mutation) addFederationVolume(audience string, seconds int64) {
	for _, v := range m.pod.entries("volumes") {
		if v["name"] == federationVolume {
			return
		}
	}
	spec := m.pod.get("spec").(object)
	m.pod.insert(spec, projected(federationVolume, federationFile, audience, seconds), len(m.pod.entries("volumes")), "/spec", "volumes")
}

// addFederationMount leaves a container alone that has something there.
func (m *mutation) addFederationMount(c container) {
	mounts := objects(c.object["volumeMounts"])
	for _, mount := range mounts {
		at, _ := mount["mountPath"].(string)
		if mount["name"] == federationVolume || path.Clean(at) == federationDir {
			return
		}
	}
	m.pod.insert(c.object, object{"name": federationVolume, "mountPath": federationDir, "readOnly": true}, len(mounts), c.path(), "volumeMounts")
}
