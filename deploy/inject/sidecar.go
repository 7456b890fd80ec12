package inject

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/svidecar/svidecar/internal/config"
)

// Where the sidecar finds things. The token's directory is not that of
// azure-workload-identity, whose webhook may add a mount of its own there.
const (
	tokenVolume  = "svidecar-token"
	tokenDir     = "/var/run/secrets/svidecar"
	tokenFile    = "token"
	socketVolume = "svidecar-spiffe"
	socketDir    = "/run/svidecar/spiffe"
	caVolume     = "svidecar-ca"
	caDir        = "/etc/svidecar/ca"
	caFile       = "ca.crt"
	emptyVolume  = "svidecar-empty"
	// The API server mounts its own token here into every container that has
	// nothing here, into those too that a webhook adds.
	apiTokenDir = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// environment is a list of variables in the making.
type environment []object

func (e *environment) add(name, value string) {
	if value != "" {
		*e = append(*e, object{"name": name, "value": escape(value)})
	}
}

func (e *environment) set(setting, value string) { e.add(variable(setting), value) }

// escape keeps kubelet from expanding $(NAME) in a value.
func escape(value string) string { return strings.ReplaceAll(value, "$", "$$") }

func unescape(value string) string { return strings.ReplaceAll(value, "$$", "$") }

// sidecarEnv is the sidecar's environment. Probes read it too, so that they ask
// the right port.
func (m *mutation) sidecarEnv(w wish, mode Mode) ([]object, error) {
	var env environment
	opsHost := "127.0.0.1"
	if w.scrape {
		opsHost = ""
	}
	env.set("listen", listen(w, mode))
	if mode == ModeAddress {
		env.set("unsafe-listen", "true") // the address is this pod's own, on lo
	}
	env.set("ops-listen", fmt.Sprintf("%s:%d", opsHost, w.opsPort))
	if mode == ModeEnv {
		env.set("identity-header", m.cfg.NewSecret())
	}
	if m.cfg.CAConfigMap != "" {
		env.set("authority-ca-file", path.Join(caDir, caFile))
	}
	env.add("HTTPS_PROXY", m.cfg.HTTPSProxy)
	env.add("NO_PROXY", m.cfg.NoProxy)
	if w.spiffe {
		env.set("source", config.KindSPIFFE)
		env.set("spiffe-socket", "unix://"+path.Join(socketDir, m.cfg.SPIFFE.SocketFile))
	} else {
		env.set("federated-token-file", path.Join(tokenDir, tokenFile))
	}
	return m.addIdentity(env, w)
}

func listen(w wish, mode Mode) string {
	if mode == ModeAddress {
		return "169.254.169.254:" + strconv.Itoa(imdsPort)
	}
	return "127.0.0.1:" + strconv.Itoa(w.port)
}

// addIdentity says who the pod is. The service account's client id surrounds the
// pod and was not written for it, as AZURE_CLIENT_ID is understood; a list may
// outrank it.
func (m *mutation) addIdentity(env environment, w wish) ([]object, error) {
	account, err := m.account()
	if err != nil {
		return nil, err
	}
	settings := map[string]string{"tenant-id": account.tenant}
	for _, s := range m.cfg.settings() {
		if settings[s.name] == "" {
			settings[s.name] = s.value
		}
	}
	for _, s := range w.settings {
		settings[s.name] = s.value
	}
	if settings["tenant-id"] == "" && !haveTenants(w.identities) {
		return nil, fmt.Errorf("no tenant: set annotation %stenant-id, annotation %s of the service account, or the installation's tenant", ours, keyTenantID)
	}
	for _, name := range sortedKeys(settings) {
		env.set(name, settings[name])
	}
	if settings["client-id"] == "" {
		env.add("AZURE_CLIENT_ID", account.client)
	}
	if len(w.identities) > 0 {
		list, err := identityList(w.identities)
		if err != nil {
			return nil, err
		}
		env.set("identities", list)
	}
	return env, nil
}

func haveTenants(ids []Identity) bool {
	for _, id := range ids {
		if id.TenantID == "" {
			return false
		}
	}
	return len(ids) > 0
}

// account is what the service account says of the pod's identity.
type account struct{ client, tenant string }

func (m *mutation) account() (account, error) {
	a := account{client: m.in.ServiceAccountAnnotations[keyClientID], tenant: m.in.ServiceAccountAnnotations[keyTenantID]}
	var bad []error
	for _, row := range []struct{ key, setting, value string }{{keyClientID, "client-id", a.client}, {keyTenantID, "tenant-id", a.tenant}} {
		if row.value == "" {
			continue
		}
		if err := checkSetting(row.setting, row.value); err != nil {
			bad = append(bad, fmt.Errorf("annotation %s of the service account: %w", row.key, err))
		}
	}
	return a, oneLine(bad)
}

// sidecar is the container. No probe comes from the network: the listeners are
// on loopback.
func (m *mutation) sidecar(w wish, mode Mode, env []object) object {
	ready := startup(ModeEnv)
	c := m.container(SidecarName, w, []any{"serve"})
	c["env"] = anyList(env)
	c["startupProbe"] = probe(startup(mode), 1, 60)
	c["readinessProbe"] = probe(ready, 10, 3)
	c["livenessProbe"] = probe(ready, 30, 4)
	c["volumeMounts"] = m.mounts(w)
	c["securityContext"] = object{
		"runAsUser": w.runAsUser, "runAsGroup": w.runAsUser, "runAsNonRoot": true,
		"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
		"capabilities":   object{"drop": []any{"ALL"}},
		"seccompProfile": object{"type": "RuntimeDefault"},
	}
	if w.scrape {
		c["ports"] = []any{object{"name": "svidecar-ops", "containerPort": w.opsPort, "protocol": "TCP"}}
	}
	if m.cfg.NativeSidecars {
		c["restartPolicy"] = "Always"
	}
	if command := m.hold(w, mode); command != nil {
		c["lifecycle"] = object{"postStart": object{"exec": object{"command": command}}}
	}
	return c
}

// startup is what the sidecar's startup probe runs.
func startup(mode Mode) []any {
	if mode == ModeEnv {
		return []any{"/svidecar", "wait", "--timeout=1s"}
	}
	return []any{"/svidecar", "redirect", "--verify"}
}

// hold is what kubelet waits for before it goes on to the next container: without
// native sidecars it does not wait for the startup probe, so that this must prove
// what that proves. With them, only a proof of tokens is left.
func (m *mutation) hold(w wish, mode Mode) []any {
	command := []any{"/svidecar", "wait", "--timeout=60s"}
	switch {
	case mode == ModeEnv && m.cfg.NativeSidecars:
		return nil
	case mode == ModeEnv:
		return command
	case !m.cfg.NativeSidecars:
		return append(command, "--redirected")
	case slices.Contains(w.settings, settingValue{"ready-requires-token", "true"}):
		return command
	}
	return nil
}

// redirection is the init container. It alone is root, with one capability; it
// has no token and no secret.
func (m *mutation) redirection(w wish, mode Mode) object {
	c := m.container(RedirectName, w, redirectArgs(mode, w.port))
	c["securityContext"] = object{
		"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false,
		"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
		"capabilities":   object{"drop": []any{"ALL"}, "add": []any{"NET_ADMIN"}},
		"seccompProfile": object{"type": "RuntimeDefault"},
	}
	if mounts := m.keepAPITokenOut(); len(mounts) > 0 {
		c["volumeMounts"] = mounts
	}
	return c
}

func redirectArgs(mode Mode, port int) []any {
	if mode == ModeAddress {
		return []any{"redirect", "--method=address"}
	}
	return []any{"redirect", "--method=nftables", "--to-port=" + strconv.Itoa(port)}
}

// keepAPITokenOut mounts an empty directory where the API server would mount
// the pod's token for itself, which neither of ours needs. In memory, because
// the cluster autoscaler keeps nodes whose pods have directories on disk.
func (m *mutation) keepAPITokenOut() []any {
	if m.pod.get("spec", "automountServiceAccountToken") == false {
		return nil
	}
	return []any{object{"name": emptyVolume, "mountPath": apiTokenDir, "readOnly": true}}
}

// container is what both have. The end of the log becomes the reason that
// kubectl describe shows.
func (m *mutation) container(name string, w wish, args []any) object {
	c := object{
		"name": name, "image": m.cfg.Image, "args": args, "resources": m.share(w).object(),
		"terminationMessagePolicy": "FallbackToLogsOnError",
	}
	if m.cfg.ImagePullPolicy != "" {
		c["imagePullPolicy"] = m.cfg.ImagePullPolicy
	}
	return c
}

func probe(command []any, period, failures int) object {
	return object{"exec": object{"command": command}, "periodSeconds": period, "timeoutSeconds": 3, "failureThreshold": failures}
}

func (m *mutation) mounts(w wish) []any {
	mounts := []any{object{"name": tokenVolume, "mountPath": tokenDir, "readOnly": true}}
	if w.spiffe {
		mounts = []any{object{"name": socketVolume, "mountPath": socketDir, "readOnly": true}}
	}
	if m.cfg.CAConfigMap != "" {
		mounts = append(mounts, object{"name": caVolume, "mountPath": caDir, "readOnly": true})
	}
	return append(mounts, m.keepAPITokenOut()...)
}

// volumes are the sidecar's alone.
func (m *mutation) volumes(w wish, cfg *config.Config) []object {
	var list []object
	switch {
	case w.spiffe && m.cfg.SPIFFE.HostPath != "":
		list = append(list, object{"name": socketVolume, "hostPath": object{"path": m.cfg.SPIFFE.HostPath, "type": "Directory"}})
	case w.spiffe:
		list = append(list, object{"name": socketVolume, "csi": object{"driver": m.cfg.SPIFFE.CSIDriver, "readOnly": true}})
	default:
		list = append(list, projected(tokenVolume, tokenFile, cfg.Audience, w.expiration))
	}
	if m.cfg.CAConfigMap != "" {
		list = append(list, object{"name": caVolume, "configMap": object{"name": m.cfg.CAConfigMap, "items": []any{object{"key": caFile, "path": caFile}}}})
	}
	if len(m.keepAPITokenOut()) > 0 {
		list = append(list, object{"name": emptyVolume, "emptyDir": object{"medium": "Memory", "sizeLimit": "4Ki"}})
	}
	return list
}

// projected is a volume with a service-account token.
func projected(name, file, audience string, seconds int64) object {
	token := object{"path": file, "audience": audience, "expirationSeconds": seconds}
	return object{"name": name, "projected": object{"sources": []any{object{"serviceAccountToken": token}}}}
}
