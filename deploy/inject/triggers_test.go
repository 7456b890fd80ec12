package inject_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/deploy/inject"
)

func TestTriggers(t *testing.T) {
	const theirs = "azure.workload.identity/inject-proxy-sidecar"
	bound := []inject.Identity{{ClientID: client}}
	for _, tt := range []struct {
		name        string
		annotations map[string]string
		bound       []inject.Identity
		want        bool
		warning     string
	}{
		{"nothing", nil, nil, false, ""},
		{"other annotations", map[string]string{"a": "b", "svidecar.iox/inject": "true"}, nil, false, ""},
		{"ours", map[string]string{"svidecar.io/inject": "true"}, nil, true, ""},
		{"theirs", map[string]string{theirs: "true"}, nil, true, ""},
		{"theirs is false", map[string]string{theirs: "false"}, nil, false, ""},
		{"theirs is false, and identities are bound", map[string]string{theirs: "false"}, bound, false, ""},
		{"bound identities", nil, bound, true, ""},
		{"ours is false, and identities are bound", map[string]string{"svidecar.io/inject": "false"}, bound, false, ""},
		{"ours is false, theirs true", map[string]string{"svidecar.io/inject": "false", theirs: "true"}, nil, false, ""},
		{"ours is true, theirs false", map[string]string{"svidecar.io/inject": "true", theirs: "false"}, nil, true, ""},
		{"settings alone", map[string]string{"svidecar.io/mode": "env", "svidecar.io/port": "9000"}, nil, false, `annotations svidecar.io/* do nothing without svidecar.io/inject: "true"`},
		{"settings of what is switched off", map[string]string{"svidecar.io/mode": "env", "svidecar.io/inject": "false"}, nil, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := mustMutate(t, config(), inject.Input{Pod: podWith(t, tt.annotations, nil), Identities: tt.bound})
			if res.Injected != tt.want || (res.Patch != nil) != tt.want || (res.Mode != "") != tt.want {
				t.Errorf("Injected %v, Mode %q, Patch %s; want %v", res.Injected, res.Mode, res.Patch, tt.want)
			}
			if tt.warning == "" {
				wantWarnings(t, res.Warnings)
			} else {
				wantWarnings(t, res.Warnings, tt.warning)
			}
		})
	}
	for key, tt := range map[string][2]string{
		"svidecar.io/injct":    {"true", `annotation "svidecar.io/injct": it is unknown`},
		"svidecar.io/mode":     {"iptables", `annotation svidecar.io/mode: "iptables" is not allowed`},
		"svidecar.io/injected": {"redirect", `annotation svidecar.io/injected: "redirect", but nothing asks for the sidecar, and the pod has none: remove it`},
	} {
		_, err := config().Mutate(inject.Input{Pod: podWith(t, map[string]string{key: tt[0]}, nil)})
		wantRefusal(t, err, tt[1])
	}
	labelled := []byte(`{"metadata":{"labels":{"svidecar.io/inject":"true"}},"spec":{"containers":[{"name":"app"}]}}`)
	_, err := config().Mutate(inject.Input{Pod: labelled})
	wantRefusal(t, err, "label svidecar.io/inject does nothing: what svidecar obeys are annotations; make it one")
	_, err = config().Mutate(inject.Input{Pod: podWith(t, map[string]string{"svidecar.io/inject": "false", "svidecar.io/injected": "env"}, nil)})
	wantRefusal(t, err, "the pod has none")
	for _, value := range []string{"", "True", "1", "yes", "null"} {
		_, err := config().Mutate(inject.Input{Pod: podWith(t, map[string]string{theirs: value}, nil)})
		wantRefusal(t, err, "annotation "+theirs+`: "`+value+`" is not allowed: it may be true or false`)
	}
}

// TestAlone: where a pod counts alone, what surrounds it changes nothing, and
// where it does not, it does.
func TestAlone(t *testing.T) {
	for _, ours := range []string{"", "true", "false", "yes"} {
		for _, theirs := range []string{"", "true", "false", "yes"} {
			for _, use := range []string{"", "true", "True"} {
				annotations, labels := map[string]string{}, map[string]any{}
				for key, value := range map[string]string{"svidecar.io/inject": ours, "azure.workload.identity/inject-proxy-sidecar": theirs} {
					if value != "" {
						annotations[key] = value
					}
				}
				if use != "" {
					labels["azure.workload.identity/use"] = use
				}
				pod, err := json.Marshal(object{"metadata": object{"annotations": annotations, "labels": labels}, "spec": object{"containers": []any{app()}}})
				if err != nil {
					t.Fatal(err)
				}
				bare := inject.Input{Pod: pod, Namespace: "shop"}
				full := bare
				full.NamespaceLabels = map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}
				full.ServiceAccountAnnotations = map[string]string{"azure.workload.identity/client-id": client}
				full.Identities = []inject.Identity{{ClientID: client2, Default: true}}
				one, oneErr := config().Mutate(bare)
				two, twoErr := config().Mutate(full)
				same := fmt.Sprint(one, oneErr) == fmt.Sprint(two, twoErr)
				if alone := inject.Alone(annotations, map[string]string{"azure.workload.identity/use": use}); alone != same {
					t.Errorf("inject %q, theirs %q, use %q: Alone = %v, and the answers are the same: %v (%v, %v)", ours, theirs, use, alone, same, oneErr, twoErr)
				}
			}
		}
	}
}

// TestPodWithoutMetadata: an identity bound by label needs no annotation.
func TestPodWithoutMetadata(t *testing.T) {
	for _, raw := range []string{`{"spec":{}}`, `{"spec":{"containers":null},"metadata":null}`, `{"spec":{"containers":[]},"metadata":{"annotations":null}}`} {
		in := inject.Input{Pod: []byte(raw), Identities: []inject.Identity{{ClientID: client}}}
		pod, _ := injected(t, config(), in)
		if pod.Annotations["svidecar.io/injected"] != "redirect" || len(pod.Spec.InitContainers) != 2 {
			t.Errorf("%s became %+v", raw, pod)
		}
	}
}

func TestModes(t *testing.T) {
	enforce := func(level string) map[string]string {
		return map[string]string{"pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/warn": "restricted"}
	}
	for _, tt := range []struct {
		name       string
		installed  inject.Mode
		annotation string
		labels     map[string]string
		want       inject.Mode
		err        string
	}{
		{"auto, no level", "", "", nil, inject.ModeRedirect, ""},
		{"auto, privileged", "", "", enforce("privileged"), inject.ModeRedirect, ""},
		{"auto, baseline", "", "", enforce("baseline"), inject.ModeEnv, ""},
		{"auto, restricted", "", "", enforce("restricted"), inject.ModeEnv, ""},
		{"auto, unknown level", "", "", enforce("Privileged"), inject.ModeEnv, ""},
		{"auto by annotation", inject.ModeEnv, "auto", nil, inject.ModeRedirect, ""},
		{"env anywhere", "", "env", enforce("privileged"), inject.ModeEnv, ""},
		{"env of the installation", inject.ModeEnv, "", nil, inject.ModeEnv, ""},
		{"redirect", inject.ModeEnv, "redirect", nil, inject.ModeRedirect, ""},
		{"address", "", "address", enforce("privileged"), inject.ModeAddress, ""},
		{"redirect, restricted", "", "redirect", enforce("restricted"), "",
			`annotation svidecar.io/mode: "redirect" needs NET_ADMIN, which the Pod Security level "restricted" of namespace "shop" forbids: it may be auto or env`},
		{"address, baseline", "", "address", enforce("baseline"), "", `"address" needs NET_ADMIN, which the Pod Security level "baseline"`},
		{"redirect of the installation, restricted", inject.ModeRedirect, "", enforce("restricted"), "", `the installation's mode: "redirect" needs NET_ADMIN`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			cfg.Mode = tt.installed
			annotations := map[string]string{"svidecar.io/inject": "true"}
			if tt.annotation != "" {
				annotations["svidecar.io/mode"] = tt.annotation
			}
			res, err := cfg.Mutate(inject.Input{Pod: podWith(t, annotations, nil), Namespace: "shop", NamespaceLabels: tt.labels})
			if tt.err != "" {
				wantRefusal(t, err, tt.err)
				return
			}
			if err != nil || res.Mode != tt.want {
				t.Errorf("Mode %q, %v; want %q", res.Mode, err, tt.want)
			}
		})
	}
}

// TestAutoWarns: where auto finds no redirection allowed, whoever creates the pod
// hears on each call that it does not cover all apps.
func TestAutoWarns(t *testing.T) {
	const warning = `mode env was chosen, since the Pod Security level "baseline" of namespace "shop" forbids NET_ADMIN: an app that has 169.254.169.254 built in does not reach the sidecar`
	in := inject.Input{Pod: podWith(t, map[string]string{"svidecar.io/inject": "true"}, nil), Namespace: "shop", NamespaceLabels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}}
	res := mustMutate(t, config(), in)
	wantWarnings(t, res.Warnings, warning)
	in.Pod = patched(t, in.Pod, res.Patch)
	wantWarnings(t, mustMutate(t, config(), in).Warnings, warning)
	in.Pod = podWith(t, on(), nil) // env by annotation
	wantWarnings(t, mustMutate(t, config(), in).Warnings)
}

// at puts a value into a pod's spec at a path, for tables.
func at(value any, path ...string) func(object) {
	return func(spec object) {
		for _, key := range path[:len(path)-1] {
			if spec[key] == nil {
				spec[key] = object{}
			}
			spec = spec[key].(object)
		}
		spec[path[len(path)-1]] = value
	}
}

// containers replaces the app's containers.
func containers(list ...any) func(object) { return at(list, "containers") }

func TestPodsAreRefused(t *testing.T) {
	port := func(n any, protocol string) object {
		p := object{"containerPort": n}
		if protocol != "" {
			p["protocol"] = protocol
		}
		return object{"name": "app", "ports": []any{p}}
	}
	for _, tt := range []struct {
		name        string
		annotations []string
		change      func(object)
		want        string // empty: not refused
	}{
		{"host network", nil, at(true, "hostNetwork"), "the pod has hostNetwork: true, where a sidecar would answer for the whole node"},
		{"no host network", nil, at(false, "hostNetwork"), ""},
		{"mirror of a static pod", []string{"kubernetes.io/config.mirror", "abc"}, nil, "it is the mirror of a static pod (annotation kubernetes.io/config.mirror), which runs as its file says"},
		{"many containers", nil, containers(slices.Repeat([]any{app()}, 257)...), "the pod has 257 containers: svidecar changes pods with at most 256"},
		{"as many as there may be", nil, containers(slices.Repeat([]any{app()}, 256)...), ""},
		{"Windows by os", nil, at("windows", "os", "name"), "the pod is for Windows"},
		{"Linux by os", nil, at("linux", "os", "name"), ""},
		{"Windows by selector", nil, at("windows", "nodeSelector", "kubernetes.io/os"), "the pod is for Windows"},
		{"Windows by old selector", nil, at("windows", "nodeSelector", "beta.kubernetes.io/os"), "the pod is for Windows"},
		{"Windows by options", nil, at(object{"hostProcess": true}, "securityContext", "windowsOptions"), "the pod is for Windows"},
		{"port", nil, containers(port(8000, "")), `container "app" has containerPort 8000, which the sidecar takes for tokens: set annotation svidecar.io/port to a free one`},
		{"port in another form", nil, containers(port(json.Number("8e3"), "TCP")), `has containerPort 8000`},
		{"ops port", nil, containers(port(8001, "")), `which the sidecar takes for health and metrics: set annotation svidecar.io/ops-port`},
		{"port of an init container", nil, at([]any{port(8000, "")}, "initContainers"), `has containerPort 8000`},
		{"port by annotation", []string{"svidecar.io/port", "9000"}, containers(port(9000, "")), `has containerPort 9000`},
		{"port that is free by annotation", []string{"svidecar.io/port", "9000"}, containers(port(8000, "")), ""},
		{"UDP port", nil, containers(port(8000, "UDP")), ""},
		{"port 80 in mode env", nil, containers(port(80, "")), ""},
		{"port 80 in mode address", []string{"svidecar.io/mode", "address"}, containers(port(80, "")), `has containerPort 80, which the sidecar takes for tokens: set annotation svidecar.io/mode to redirect or env`},
		{"another port in mode address", []string{"svidecar.io/mode", "address", "svidecar.io/port", "81"}, nil, `annotation svidecar.io/port: "81" is not allowed: in mode address it may be 80 only`},
		{"another port of theirs in mode address", []string{"svidecar.io/mode", "address", "azure.workload.identity/proxy-sidecar-port", "8000"}, nil, ""},
		{"app on 8000 in mode address", []string{"svidecar.io/mode", "address"}, containers(port(8000, "")), ""},
		{"sysctl in mode address", []string{"svidecar.io/mode", "address"}, at([]any{object{"name": "net.ipv4.ip_unprivileged_port_start", "value": "1024"}}, "securityContext", "sysctls"),
			`the pod sets sysctl net.ipv4.ip_unprivileged_port_start to "1024", and the mode address needs at most 80`},
		{"sysctl that is low enough", []string{"svidecar.io/mode", "address"}, at([]any{object{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}}, "securityContext", "sysctls"), ""},
		{"a container of our name", nil, containers(object{"name": "svidecar"}), `the pod has a container "svidecar" that svidecar did not inject: rename or remove it`},
		{"an init container of our name", nil, at([]any{object{"name": "svidecar-redirect"}}, "initContainers"), `the pod has a container "svidecar-redirect"`},
		{"an ephemeral container of our name", []string{"svidecar.io/injected", "env"}, at([]any{object{"name": "svidecar"}}, "ephemeralContainers"), `the pod has a container "svidecar"`},
		{"azure-workload-identity's sidecar", nil, containers(object{"name": "azwi-proxy"}), `the pod has a container "azwi-proxy"`},
		{"a volume of our name", nil, at([]any{object{"name": "svidecar-token"}}, "volumes"), `the pod has a volume "svidecar-token" that svidecar did not add: rename it`},
		{"user of the app", []string{"svidecar.io/run-as-user", "1000"}, at(1000, "securityContext", "runAsUser"),
			`annotation svidecar.io/run-as-user: "1000" is not allowed: the pod runs as that user`},
		{"user of a container", []string{"svidecar.io/run-as-user", "1000"}, containers(object{"name": "app", "securityContext": object{"runAsUser": 1000}}), `container "app" runs as that user`},
		{"no tenant", []string{"svidecar.io/identities", `[{"clientId":"` + client + `","tenantId":"` + tenant + `"},{"clientId":"` + client2 + `"}]`}, nil, "no tenant: set annotation svidecar.io/tenant-id"},
		{"tenants in the list", []string{"svidecar.io/identities", `[{"clientId":"` + client + `","tenantId":"` + tenant + `"}]`}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			if len(tt.annotations) > 0 && tt.annotations[0] == "svidecar.io/identities" {
				cfg.TenantID = ""
			}
			res, err := cfg.Mutate(inject.Input{Pod: podWith(t, on(tt.annotations...), tt.change)})
			switch {
			case tt.want != "":
				wantRefusal(t, err, tt.want)
			case err != nil || !res.Injected:
				t.Errorf("Mutate: %v; want no error", err)
			}
		})
	}
}

// TestFederationIsRefused where nothing can be done to the pod.
func TestFederationIsRefused(t *testing.T) {
	for want, metadata := range map[string]object{
		"mirror of a static pod": {"annotations": object{"kubernetes.io/config.mirror": "abc"}},
		"257 containers":         {},
	} {
		metadata["labels"] = object{"azure.workload.identity/use": "true"}
		raw, err := json.Marshal(object{"metadata": metadata, "spec": object{"containers": slices.Repeat([]any{app()}, 257)}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = config().Mutate(inject.Input{Pod: raw})
		wantRefusal(t, err, want)
	}
}

// TestMarkOfOurs: what bears our mark is taken for ours only if it fits.
func TestMarkOfOurs(t *testing.T) {
	_, err := config().Mutate(inject.Input{Pod: podWith(t, on("svidecar.io/injected", "none"), containers(object{"name": "svidecar"}))})
	wantRefusal(t, err, `annotation svidecar.io/injected: "none" is not allowed: svidecar writes it; remove it`)
	// A template that was copied from a pod has the mark, and no sidecar yet.
	pod, _ := injected(t, config(), inject.Input{Pod: podWith(t, on("svidecar.io/injected", "redirect"), nil)})
	if named(t, pod, "svidecar"); pod.Annotations["svidecar.io/injected"] != "env" {
		t.Errorf("the mark is %q, want env", pod.Annotations["svidecar.io/injected"])
	}
}

// TestWarnsOfNoDefault: without a default identity only requests that name one get a
// token, which whoever creates the pod hears once.
func TestWarnsOfNoDefault(t *testing.T) {
	listed := `[{"clientId":"` + client + `"},{"clientId":"` + client2 + `"}]`
	for name, tt := range map[string]struct {
		in   inject.Input
		warn bool
	}{
		"none":                    {inject.Input{Pod: podWith(t, on(), nil)}, true},
		"several":                 {inject.Input{Pod: podWith(t, on("svidecar.io/identities", listed), nil)}, true},
		"several bound":           {inject.Input{Pod: podWith(t, on(), nil), Identities: []inject.Identity{{ClientID: client}, {ClientID: client2}}}, true},
		"annotation":              {inject.Input{Pod: podWith(t, on("svidecar.io/client-id", client), nil)}, false},
		"service account":         {inject.Input{Pod: podWith(t, on(), nil), ServiceAccountAnnotations: map[string]string{"azure.workload.identity/client-id": client}}, false},
		"several, one of them":    {inject.Input{Pod: podWith(t, on("svidecar.io/identities", listed, "svidecar.io/client-id", client), nil)}, false},
		"several, account's":      {inject.Input{Pod: podWith(t, on("svidecar.io/identities", listed), nil), ServiceAccountAnnotations: map[string]string{"azure.workload.identity/client-id": client2}}, false},
		"one bound":               {inject.Input{Pod: podWith(t, on(), nil), Identities: []inject.Identity{{ClientID: client, Default: true}}}, false},
		"nothing asks for tokens": {inject.Input{Pod: podWith(t, nil, nil)}, false},
	} {
		tt.in.Namespace = "shop"
		res := mustMutate(t, config(), tt.in)
		want := "annotation azure.workload.identity/client-id of service account shop/default"
		if got := len(res.Warnings) == 1 && strings.Contains(res.Warnings[0], want); got != tt.warn || len(res.Warnings) > 1 {
			t.Errorf("%s: warnings %q, want %v", name, res.Warnings, tt.warn)
		}
		if again := mustMutate(t, config(), inject.Input{Pod: patched(t, tt.in.Pod, res.Patch), Namespace: "shop", Identities: tt.in.Identities, ServiceAccountAnnotations: tt.in.ServiceAccountAnnotations}); len(again.Warnings) > 0 {
			t.Errorf("%s: warnings again: %q", name, again.Warnings)
		}
	}
}

func TestMalformedPods(t *testing.T) {
	for _, raw := range []string{
		``, `null`, `[]`, `"pod"`, `{`, `{"spec":{}}{}`, `{}`, `{"spec":null}`, `{"spec":[]}`, `{"spec":{},"metadata":[]}`,
		`{"spec":{},"metadata":{"annotations":[]}}`, `{"spec":{"containers":{}}}`, `{"spec":{"containers":["a"]}}`,
		`{"spec":{"containers":[{"env":{}}]}}`, `{"spec":{"initContainers":[{"env":["A"]}]}}`, `{"spec":{"volumes":"none"}}`,
		`{"spec":{"containers":[{"volumeMounts":1}]}}`, `{"spec":{"securityContext":[]}}`,
	} {
		_, err := config().Mutate(inject.Input{Pod: []byte(raw), Identities: []inject.Identity{{ClientID: client}}})
		wantRefusal(t, err, "the pod is malformed: ")
	}
}

func TestWithoutNativeSidecars(t *testing.T) {
	cfg := config()
	cfg.NativeSidecars = false
	for _, policy := range []string{"Never", "OnFailure"} {
		_, err := cfg.Mutate(inject.Input{Pod: podWith(t, on(), at(policy, "restartPolicy"))})
		wantRefusal(t, err, "the pod has restartPolicy: "+policy+", and would never end")
	}
	pod, res := injected(t, cfg, inject.Input{Pod: podWith(t, on(), at([]any{object{"name": "setup"}}, "initContainers"))})
	wantWarnings(t, res.Warnings, `init container "setup" gets no tokens`)
	if pod.Spec.Containers[0].Name != "svidecar" || pod.Spec.Containers[0].RestartPolicy != nil || pod.Spec.Containers[0].Lifecycle.PostStart.Exec == nil {
		t.Errorf("the sidecar is not the first container, or lets the next one start too early: %+v", pod.Spec.Containers)
	}
	if got := pod.Annotations["kubectl.kubernetes.io/default-container"]; got != "app" {
		t.Errorf("kubectl's default container is %q, want app", got)
	}
	chosen := map[string]string{"kubectl.kubernetes.io/default-container": "other", "svidecar.io/inject": "true"}
	pod, _ = injected(t, cfg, inject.Input{Pod: podWith(t, chosen, nil)})
	if got := pod.Annotations["kubectl.kubernetes.io/default-container"]; got != "other" {
		t.Errorf("kubectl's default container was changed to %q", got)
	}
}

// TestClassicSidecarHolds: without native sidecars kubelet waits for no startup
// probe, so what holds the app back proves the redirection itself.
func TestClassicSidecarHolds(t *testing.T) {
	cfg := config()
	cfg.NativeSidecars = false
	wait := []string{"/svidecar", "wait", "--timeout=60s"}
	for mode, want := range map[string][]string{"env": wait, "redirect": append(wait[:3:3], "--redirected"), "address": append(wait[:3:3], "--redirected")} {
		pod, _ := injected(t, cfg, inject.Input{Pod: podWith(t, on("svidecar.io/mode", mode), nil)})
		if got := named(t, pod, "svidecar").Lifecycle.PostStart.Exec.Command; !slices.Equal(got, want) {
			t.Errorf("%s: postStart is %q, want %q", mode, got, want)
		}
	}
}

// TestUser: the sidecar shares its user with no container.
func TestUser(t *testing.T) {
	taken := containers(object{"name": "a", "securityContext": object{"runAsUser": 65531}}, object{"name": "b", "securityContext": object{"runAsUser": json.Number("6.553e4")}})
	for _, tt := range []struct {
		name   string
		user   int64
		change func(object)
		want   int64
	}{
		{"free", 0, nil, 65531},
		{"of the pod", 0, at(65531, "securityContext", "runAsUser"), 65530},
		{"of two containers", 0, taken, 65529},
		{"the lowest", 1, at(1, "securityContext", "runAsUser"), 1<<31 - 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			cfg.RunAsUser = tt.user
			pod := inject.Input{Pod: podWith(t, on(), tt.change)}
			res := mustMutate(t, cfg, pod)
			var got struct {
				Spec struct {
					InitContainers []struct {
						SecurityContext struct{ RunAsUser, RunAsGroup int64 }
					}
				}
			}
			if err := json.Unmarshal(patched(t, pod.Pod, res.Patch), &got); err != nil {
				t.Fatal(err)
			}
			if sc := got.Spec.InitContainers[0].SecurityContext; sc.RunAsUser != tt.want || sc.RunAsGroup != tt.want {
				t.Errorf("user %d and group %d, want %d", sc.RunAsUser, sc.RunAsGroup, tt.want)
			}
		})
	}
}

// TestAppWaitsForTokens: where it is told to, in whatever mode.
func TestAppWaitsForTokens(t *testing.T) {
	wait := []string{"/svidecar", "wait", "--timeout=60s"}
	for mode, starts := range map[string][]string{"env": {"/svidecar", "wait", "--timeout=1s"}, "redirect": {"/svidecar", "redirect", "--verify"}, "address": {"/svidecar", "redirect", "--verify"}} {
		for _, waits := range []string{"true", "false"} {
			in := inject.Input{Pod: podWith(t, on("svidecar.io/mode", mode, "svidecar.io/prefetch", "https://a", "svidecar.io/ready-requires-token", waits), nil)}
			pod, _ := injected(t, config(), in)
			c := named(t, pod, "svidecar")
			if got := c.StartupProbe.Exec.Command; !slices.Equal(got, starts) {
				t.Errorf("%s: the startup probe is %q, want %q", mode, got, starts)
			}
			held := c.Lifecycle != nil && slices.Equal(c.Lifecycle.PostStart.Exec.Command, wait)
			if want := mode != "env" && waits == "true"; held != want {
				t.Errorf("%s, ready-requires-token %s: held by postStart: %v, want %v", mode, waits, held, want)
			}
		}
	}
}
