package inject_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/svidecar/svidecar/deploy/inject"
)

const endpoint = "http://127.0.0.1:8000/msi/token"

// told are the variables of a container in mode env.
func told(more ...string) map[string]string {
	m := map[string]string{
		"IDENTITY_ENDPOINT": endpoint, "IDENTITY_HEADER": header, "MSI_ENDPOINT": endpoint, "MSI_SECRET": header,
		"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:8000",
		"NO_PROXY":                          "127.0.0.1,localhost,169.254.169.254", "no_proxy": "127.0.0.1,localhost,169.254.169.254",
	}
	for i := 0; i+1 < len(more); i += 2 {
		if m[more[i]] = more[i+1]; more[i+1] == "-" {
			delete(m, more[i])
		}
	}
	return m
}

// app is a container with variables, in pairs.
func app(pairs ...any) object {
	var env []any
	for i := 0; i+1 < len(pairs); i += 2 {
		e := object{"name": pairs[i], "value": pairs[i+1]}
		if from, ok := pairs[i+1].(object); ok {
			e = object{"name": pairs[i], "valueFrom": from}
		}
		env = append(env, e)
	}
	c := object{"name": "app"}
	if env != nil {
		c["env"] = env
	}
	return c
}

const all = "127.0.0.1,localhost,169.254.169.254"

func TestVariables(t *testing.T) {
	field := object{"fieldRef": object{"fieldPath": "status.podIP"}}
	ownNothing := []string{"IDENTITY_ENDPOINT", "-", "IDENTITY_HEADER", "-", "MSI_ENDPOINT", "-", "MSI_SECRET", "-"}
	withEnvFrom := app()
	withEnvFrom["envFrom"] = []any{object{"configMapRef": object{"name": "c"}}}
	for _, tt := range []struct {
		name     string
		app      object
		want     map[string]string
		warnings []string
	}{
		{"none", app(), told(), nil},
		{"null", object{"name": "app", "env": nil}, told(), nil},
		{"others", app("A", "b"), told("A", "b"), nil},
		{"NO_PROXY is extended", app("NO_PROXY", "10.0.0.0/8,.corp"), told("NO_PROXY", "10.0.0.0/8,.corp,"+all, "no_proxy", "10.0.0.0/8,.corp,"+all), nil},
		{"no_proxy is extended", app("no_proxy", ".corp"), told("NO_PROXY", ".corp,"+all, "no_proxy", ".corp,"+all), nil},
		{"both are extended", app("NO_PROXY", "a", "no_proxy", "b, localhost,"), told("NO_PROXY", "a,"+all, "no_proxy", "b, localhost,127.0.0.1,169.254.169.254"), nil},
		{"an empty NO_PROXY", app("NO_PROXY", ""), told(), nil},
		{"everything without proxy", app("NO_PROXY", "*"), told("NO_PROXY", "*", "no_proxy", "*"), nil},
		{"a reference is kept", app("NO_PROXY", "$(OTHER)"), told("NO_PROXY", "$(OTHER),"+all, "no_proxy", "$(OTHER),"+all), nil},
		{"the last of one name counts", app("NO_PROXY", "a", "NO_PROXY", "b"), told("NO_PROXY", "b,"+all, "no_proxy", "b,"+all), nil},
		{"NO_PROXY from elsewhere", app("NO_PROXY", field), told("NO_PROXY", "", "no_proxy", "-"),
			[]string{`container "app" takes NO_PROXY from elsewhere: 127.0.0.1, localhost, 169.254.169.254 must be in it`, `takes NO_PROXY from elsewhere`}},
		{"envFrom", withEnvFrom, told("NO_PROXY", "-", "no_proxy", "-"), []string{`container "app" takes variables from elsewhere (envFrom): if they name a proxy, NO_PROXY must have`}},
		{"own MSI_ENDPOINT", app("MSI_ENDPOINT", "http://mine"), told(append(slices.Clone(ownNothing), "MSI_ENDPOINT", "http://mine")...),
			[]string{`container "app" sets MSI_ENDPOINT itself, so none of IDENTITY_ENDPOINT, IDENTITY_HEADER, MSI_ENDPOINT and MSI_SECRET is set`}},
		{"own IDENTITY_HEADER", app("IDENTITY_HEADER", field), told(append(slices.Clone(ownNothing), "IDENTITY_HEADER", "")...), []string{`sets IDENTITY_HEADER itself`}},
		{"own authority host", app("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://mine"), told("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://mine"),
			[]string{`container "app" sets AZURE_POD_IDENTITY_AUTHORITY_HOST itself: it is left as it is`}},
		{"misleading", app("IMDS_ENDPOINT", "http://a", "IDENTITY_SERVER_THUMBPRINT", "b"), told("IMDS_ENDPOINT", "http://a", "IDENTITY_SERVER_THUMBPRINT", "b"),
			[]string{`sets IDENTITY_SERVER_THUMBPRINT, which makes SDKs speak a protocol`, `sets IMDS_ENDPOINT, which`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod, res := injected(t, config(), inject.Input{Pod: podWith(t, on(), containers(tt.app))})
			got := map[string]string{}
			for _, v := range named(t, pod, "app").Env {
				got[v.Name] = v.Value
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("variables (-want +got):\n%s", diff)
			}
			wantWarnings(t, res.Warnings, tt.warnings...)
		})
	}
}

// TestProxyFromElsewhere: whether what a redirected container takes from elsewhere
// names a proxy is not in the pod.
func TestProxyFromElsewhere(t *testing.T) {
	for _, mode := range []string{"redirect", "address"} {
		from := app("NO_PROXY", "a")
		from["envFrom"] = []any{object{"configMapRef": object{"name": "proxy"}}}
		bare := object{"name": "bare", "envFrom": from["envFrom"]}
		raw := podWith(t, map[string]string{"svidecar.io/inject": "true", "svidecar.io/mode": mode}, containers(from, bare))
		pod, res := injected(t, config(), inject.Input{Pod: raw})
		wantWarnings(t, res.Warnings, `container "bare" takes variables from elsewhere (envFrom): if they name a proxy, NO_PROXY must have 169.254.169.254 in it`)
		if got := environ(named(t, pod, "app"))["NO_PROXY"]; got != "a,169.254.169.254" {
			t.Errorf("%s: NO_PROXY=%q", mode, got)
		}
		if env := named(t, pod, "bare").Env; len(env) > 0 {
			t.Errorf("%s: bare has %v", mode, env)
		}
	}
}

// TestSecretGoesToOneEndpoint: where a container has an endpoint of its own, our
// secret stays away from it.
func TestSecretGoesToOneEndpoint(t *testing.T) {
	for _, name := range []string{"IDENTITY_ENDPOINT", "MSI_ENDPOINT"} {
		pod, _ := injected(t, config(), inject.Input{Pod: podWith(t, on(), containers(app(name, "http://elsewhere.example")))})
		for _, v := range named(t, pod, "app").Env {
			if v.Value == header {
				t.Errorf("%s goes to %s", v.Name, name)
			}
		}
	}
}

func TestEveryContainerIsTold(t *testing.T) {
	change := func(spec object) {
		spec["containers"] = []any{object{"name": "app"}, object{"name": "left"}}
		spec["initContainers"] = []any{object{"name": "setup"}, object{"name": "also-left"}}
	}
	in := inject.Input{Pod: podWith(t, on("svidecar.io/skip-containers", "left; also-left;gone", "svidecar.io/port", "9000"), change)}
	pod, res := injected(t, config(), in)
	wantWarnings(t, res.Warnings, `annotation svidecar.io/skip-containers names "gone", which is no container of the pod`)
	for name, want := range map[string]string{"app": "http://127.0.0.1:9000/msi/token", "setup": "http://127.0.0.1:9000/msi/token", "left": "", "also-left": ""} {
		if got := environ(named(t, pod, name))["IDENTITY_ENDPOINT"]; got != want {
			t.Errorf("%s has IDENTITY_ENDPOINT=%q, want %q", name, got, want)
		}
	}
	sidecar := checkSettings(t, named(t, pod, "svidecar"))
	if sidecar.IdentityHeader.Reveal() != header {
		t.Error("the sidecar has another secret than the app")
	}
}

// TestRedirectedContainersAreLeftAlone, but for a proxy that would take their
// requests.
func TestRedirectedContainersAreLeftAlone(t *testing.T) {
	for _, mode := range []string{"redirect", "address"} {
		change := containers(app(), object{"name": "proxied", "env": []any{object{"name": "https_proxy", "value": "http://p"}, object{"name": "NO_PROXY", "value": "a"}}})
		raw := podWith(t, map[string]string{"svidecar.io/inject": "true", "svidecar.io/mode": mode}, change)
		pod, _ := injected(t, config(), inject.Input{Pod: raw})
		if env := named(t, pod, "app").Env; len(env) > 0 {
			t.Errorf("%s: the app has %v", mode, env)
		}
		want := map[string]string{"https_proxy": "http://p", "NO_PROXY": "a,169.254.169.254", "no_proxy": "a,169.254.169.254"}
		if diff := cmp.Diff(want, environ(named(t, pod, "proxied"))); diff != "" {
			t.Errorf("%s: variables (-want +got):\n%s", mode, diff)
		}
		if env := environ(named(t, pod, "svidecar")); env["SVIDECAR_IDENTITY_HEADER"] != "" {
			t.Errorf("%s: the sidecar has a secret that nobody knows", mode)
		}
	}
}

func TestSecretIsNewForEachPod(t *testing.T) {
	cfg := config()
	cfg.NewSecret = nil
	seen := map[string]bool{}
	for range 3 {
		pod, _ := injected(t, cfg, inject.Input{Pod: podWith(t, on(), nil)})
		seen[environ(named(t, pod, "app"))["IDENTITY_HEADER"]] = true
	}
	if secrets := slices.Collect(maps.Keys(seen)); len(secrets) != 3 || len(secrets[0]) < 26 {
		t.Errorf("3 pods have the secrets %q", secrets)
	}
	// One that the sidecar would refuse is refused here.
	cfg.NewSecret = func() string { return "short" }
	_, err := cfg.Mutate(inject.Input{Pod: podWith(t, on(), nil)})
	wantRefusal(t, err, "the secret has fewer than 16 characters")
	if strings.Contains(err.Error(), `"short"`) {
		t.Errorf("the error shows the secret: %v", err)
	}
}

// TestIdentity: who the pod is, by the service account, the installation, an
// annotation and the bound identities.
func TestIdentity(t *testing.T) {
	account := map[string]string{"azure.workload.identity/client-id": client, "azure.workload.identity/tenant-id": tenant2}
	list := `[{"clientId":"` + client2 + `"},{"clientId":"` + client + `","tenantId":"` + tenant + `"}]`
	two := []inject.Identity{{ClientID: client2}, {ClientID: client, Default: true}}
	for _, tt := range []struct {
		name        string
		annotations []string
		account     map[string]string
		bound       []inject.Identity
		want        string // tenant of the default, default, number of listed identities
	}{
		{"installation", nil, nil, nil, "1111 none 0"},
		{"service account", nil, account, nil, "2222 aaaa 0"},
		{"annotations", []string{"svidecar.io/client-id", client2, "svidecar.io/tenant-id", tenant}, account, nil, "1111 bbbb 0"},
		{"one bound identity", nil, nil, two[:1], "1111 bbbb 1"},
		{"bound identities", nil, nil, two, "1111 aaaa 2"},
		{"bound identities outrank the service account", nil, map[string]string{"azure.workload.identity/client-id": client2}, two, "1111 aaaa 2"},
		{"a list, and the service account chooses", []string{"svidecar.io/identities", list}, map[string]string{"azure.workload.identity/client-id": client}, nil, "1111 aaaa 2"},
		{"a list, and an annotation chooses", []string{"svidecar.io/identities", list, "svidecar.io/client-id", client2}, account, nil, "2222 bbbb 2"},
		{"a list outranks bound identities", []string{"svidecar.io/identities", list}, nil, two[:1], "1111 none 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := inject.Input{Pod: podWith(t, on(tt.annotations...), nil), ServiceAccountAnnotations: tt.account, Identities: tt.bound}
			pod, _ := injected(t, config(), in)
			cfg := checkSettings(t, named(t, pod, "svidecar"))
			tenant, id := cfg.TenantID, cfg.ClientID
			if len(cfg.Identities) > 0 {
				id = ""
			}
			for _, i := range cfg.Identities {
				if i.Default {
					tenant, id = i.TenantID, i.ClientID
				}
			}
			if got := short(tenant) + " " + short(id) + " " + string(rune('0'+len(cfg.Identities))); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
	for key, want := range map[string]string{"azure.workload.identity/client-id": "is not a GUID", "azure.workload.identity/tenant-id": "is neither a GUID nor a domain name"} {
		_, err := config().Mutate(inject.Input{Pod: podWith(t, on(), nil), ServiceAccountAnnotations: map[string]string{key: "x y"}})
		wantRefusal(t, err, "annotation "+key+` of the service account: "x y" `+want)
	}
	_, err := config().Mutate(inject.Input{Pod: podWith(t, on(), nil), Identities: []inject.Identity{{ClientID: "x"}}})
	wantRefusal(t, err, `the sidecar would not start: the identities bound by aadpodidbinding: identities[0].client-id: "x" is not a GUID`)
}

// TestAPITokenStaysOut: the API server mounts its token into whatever container
// has nothing at that path, after the webhooks too.
func TestAPITokenStaysOut(t *testing.T) {
	const at = "/var/run/secrets/kubernetes.io/serviceaccount"
	for _, tt := range []struct {
		name      string
		automount any
		mounted   bool
	}{{"not said", nil, true}, {"on", true, true}, {"off", false, false}} {
		raw := podWith(t, on("svidecar.io/mode", "redirect"), func(spec object) {
			if tt.automount != nil {
				spec["automountServiceAccountToken"] = tt.automount
			}
		})
		pod, _ := injected(t, config(), inject.Input{Pod: raw})
		for _, name := range []string{"svidecar-redirect", "svidecar"} {
			mounts := named(t, pod, name).VolumeMounts
			i := slices.IndexFunc(mounts, func(m corev1.VolumeMount) bool { return m.MountPath == at })
			if (i >= 0) != tt.mounted {
				t.Errorf("%s: %s has mounts %+v", tt.name, name, mounts)
			}
			if i < 0 {
				continue
			}
			v := pod.Spec.Volumes[slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mounts[i].Name })]
			if v.EmptyDir == nil || v.EmptyDir.Medium != corev1.StorageMediumMemory || !mounts[i].ReadOnly {
				t.Errorf("%s: %s has %+v there", tt.name, name, v)
			}
		}
	}
}

// short is the first four digits.
func short(id string) string {
	if id == "" {
		return "none"
	}
	return id[:4]
}

func TestSPIFFE(t *testing.T) {
	pod, _ := injected(t, config(), inject.Input{Pod: podWith(t, on("svidecar.io/source", "spiffe"), nil)})
	sidecar := named(t, pod, "svidecar")
	if got := checkSettings(t, sidecar).Sources[0].Socket; got != "unix:///run/svidecar/spiffe/spire-agent.sock" {
		t.Errorf("the socket is %q", got)
	}
	v := pod.Spec.Volumes
	if len(v) != 2 || v[0].CSI == nil || v[0].CSI.Driver != "csi.spiffe.io" || !*v[0].CSI.ReadOnly || sidecar.VolumeMounts[0].MountPath != "/run/svidecar/spiffe" {
		t.Errorf("volumes %+v, mounts %+v; want the CSI driver's and no token", v, sidecar.VolumeMounts)
	}
	cfg := config()
	cfg.SPIFFE = inject.SPIFFE{HostPath: "/run/spire/agent/public", SocketFile: "api.sock"}
	pod, _ = injected(t, cfg, inject.Input{Pod: podWith(t, on("svidecar.io/source", "spiffe"), nil)})
	if got := checkSettings(t, named(t, pod, "svidecar")).Sources[0].Socket; got != "unix:///run/svidecar/spiffe/api.sock" || pod.Spec.Volumes[0].HostPath.Path != "/run/spire/agent/public" {
		t.Errorf("the socket is %q of %+v", got, pod.Spec.Volumes)
	}
	_, err := cfg.Mutate(inject.Input{
		Pod: podWith(t, on("svidecar.io/source", "spiffe"), nil), Namespace: "shop", NamespaceLabels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"},
	})
	wantRefusal(t, err, `annotation svidecar.io/source: "spiffe" needs a host path in this installation, which the Pod Security level "baseline" of namespace "shop" forbids`)
}

// TestFederation: the label of azure-workload-identity, with and without our
// sidecar.
func TestFederation(t *testing.T) {
	account := map[string]string{"azure.workload.identity/client-id": client}
	labelled := func(annotations map[string]string, change func(object)) []byte {
		return []byte(strings.Replace(string(podWith(t, annotations, change)), `"name":"p"`, `"name":"p","labels":{"azure.workload.identity/use":"true"}`, 1))
	}
	change := func(spec object) {
		spec["initContainers"] = []any{object{"name": "setup"}}
		spec["containers"] = []any{app("AZURE_CLIENT_ID", client2, "AZURE_TENANT_ID", object{"secretKeyRef": object{"name": "s", "key": "k"}}), object{"name": "left"},
			object{"name": "mounted", "volumeMounts": []any{object{"name": "own", "mountPath": "/var/run/secrets/azure/tokens/"}}}}
	}
	want := map[string]string{
		"AZURE_CLIENT_ID": client, "AZURE_TENANT_ID": tenant, "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
		"AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token",
	}
	raw := labelled(map[string]string{"azure.workload.identity/skip-containers": "left;gone"}, change)
	pod, res := injected(t, config(), inject.Input{Pod: raw, ServiceAccountAnnotations: account})
	wantWarnings(t, res.Warnings, `annotation azure.workload.identity/skip-containers names "gone"`)
	if res.Injected || len(pod.Spec.InitContainers) != 1 || len(pod.Spec.Volumes) != 1 {
		t.Errorf("the label alone gives %+v", pod.Spec)
	}
	token := pod.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken
	if token.Audience != "api://AzureADTokenExchange" || *token.ExpirationSeconds != 3600 || token.Path != "azure-identity-token" || pod.Spec.Volumes[0].Name != "azure-identity-token" {
		t.Errorf("the token is %+v", token)
	}
	setup := named(t, pod, "setup")
	if diff := cmp.Diff(want, environ(setup)); diff != "" || setup.VolumeMounts[0].MountPath != "/var/run/secrets/azure/tokens" || !setup.VolumeMounts[0].ReadOnly {
		t.Errorf("mounts %+v, variables (-want +got):\n%s", setup.VolumeMounts, diff)
	}
	got := environ(named(t, pod, "app"))
	if got["AZURE_CLIENT_ID"] != client2 || got["AZURE_TENANT_ID"] != "" || len(got) != 4 {
		t.Errorf("the app's own variables became %v", got)
	}
	if c := named(t, pod, "left"); len(c.Env)+len(c.VolumeMounts) > 0 {
		t.Errorf("the skipped container is %+v", c)
	}
	if c := named(t, pod, "mounted"); len(c.VolumeMounts) != 1 {
		t.Errorf("mounts %+v, want its own only", c.VolumeMounts)
	}

	// Our own containers get none of it.
	pod, _ = injected(t, config(), inject.Input{Pod: labelled(map[string]string{"svidecar.io/inject": "true"}, change), ServiceAccountAnnotations: account})
	for _, name := range []string{"svidecar", "svidecar-redirect"} {
		c := named(t, pod, name)
		if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "azure-identity-token" }) || environ(c)["AZURE_FEDERATED_TOKEN_FILE"] != "" {
			t.Errorf("%s has the app's token", name)
		}
	}

	cfg := config()
	cfg.TenantID = ""
	_, err := cfg.Mutate(inject.Input{Pod: raw, ServiceAccountAnnotations: account})
	wantRefusal(t, err, "label azure.workload.identity/use: no tenant: set annotation azure.workload.identity/tenant-id of the service account")
	res = mustMutate(t, config(), inject.Input{Pod: []byte(strings.Replace(string(raw), `"azure.workload.identity/use":"true"`, `"azure.workload.identity/use":"True"`, 1))})
	if wantWarnings(t, res.Warnings, `label azure.workload.identity/use: "True" does nothing: it may be "true"`); res.Patch != nil {
		t.Errorf("a label that does nothing gives %s", res.Patch)
	}
}
