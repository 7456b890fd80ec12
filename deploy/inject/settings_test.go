package inject_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/svidecar/svidecar/deploy/inject"
	sidecarconfig "github.com/svidecar/svidecar/internal/config"
)

// checkSettings runs the sidecar's environment through its real parser, but for
// the file of certificates, which is not on this machine.
func checkSettings(t testing.TB, sidecar corev1.Container) *sidecarconfig.Config {
	t.Helper()
	if !slices.Equal(sidecar.Args, []string{"serve"}) {
		t.Errorf("args are %q, want serve", sidecar.Args)
	}
	env := environ(sidecar)
	delete(env, "SVIDECAR_AUTHORITY_CA_FILE")
	cfg, err := sidecarconfig.Load(nil, pairs(env))
	if err != nil {
		t.Fatalf("the sidecar refuses its environment: %v", err)
	}
	return cfg
}

// resourcesOf prints the resources of the sidecar as they stand in a patch.
func resourcesOf(t testing.TB, patch []byte) string {
	t.Helper()
	var ops []struct {
		Value json.RawMessage
	}
	if err := json.Unmarshal(patch, &ops); err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		var c []struct {
			Name      string
			Resources struct{ Requests, Limits map[string]string }
		}
		if json.Unmarshal(op.Value, &c) != nil || len(c) != 1 || c[0].Name != "svidecar" {
			continue
		}
		words := []string{"requests"}
		words = append(words, list(c[0].Resources.Requests)...)
		words = append(append(words, "limits"), list(c[0].Resources.Limits)...)
		return strings.Join(words, " ")
	}
	t.Fatalf("no sidecar in %s", patch)
	return ""
}

func list(quantities map[string]string) []string {
	var all []string
	for _, name := range []string{"cpu", "memory"} {
		if q, ok := quantities[name]; ok {
			all = append(all, name+"="+q)
		}
	}
	return all
}

func TestConfigIsValidated(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(*inject.Config)
	}{
		{"no image", `Config.Image "" is no image`, func(c *inject.Config) { c.Image = "" }},
		{"image with a space", `Config.Image "a b" is no image`, func(c *inject.Config) { c.Image = "a b" }},
		{"pull policy", `Config.ImagePullPolicy "always" is none of Always, IfNotPresent, Never`, func(c *inject.Config) { c.ImagePullPolicy = "always" }},
		{"mode", `Config.Mode "iptables" is none of auto, env, redirect, address`, func(c *inject.Config) { c.Mode = "iptables" }},
		{"port", `Config.Port 70000 and OpsPort 8001 are not two ports`, func(c *inject.Config) { c.Port = 70000 }},
		{"one port", `Config.Port 8001 and OpsPort 8001 are not two ports`, func(c *inject.Config) { c.Port = 8001 }},
		{"user", `Config.RunAsUser -1 is not from 1 to 2147483647`, func(c *inject.Config) { c.RunAsUser = -1 }},
		{"expiration", `Config.TokenExpiration 60 is not from 3600 to 86400`, func(c *inject.Config) { c.TokenExpiration = 60 }},
		{"host path", `Config.SPIFFE.HostPath "run" is no absolute path`, func(c *inject.Config) { c.SPIFFE.HostPath = "run" }},
		{"socket file", `Config.SPIFFE.SocketFile "a/b" is not the name of a file`, func(c *inject.Config) { c.SPIFFE.SocketFile = "a/b" }},
		{"resources", `Config.Resources: "lots" is neither a quantity`, func(c *inject.Config) { c.Resources.CPULimit = "lots" }},
		{"tenant", `Config: tenant-id: "common" stands for many tenants`, func(c *inject.Config) { c.TenantID = "common" }},
		{"cloud", `Config: cloud: "mars" is none of public, usgov, china`, func(c *inject.Config) { c.Cloud = "mars" }},
		{"authority", `Config: authority-host: "http://a" is not https`, func(c *inject.Config) { c.AuthorityHost = "http://a" }},
		{"log level", `Config: log-level: "loud" is none of`, func(c *inject.Config) { c.LogLevel = "loud" }},
		{"two problems", `; inject: Config.RunAsUser`, func(c *inject.Config) { c.Image, c.RunAsUser = "", -1 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			tt.change(&cfg)
			wantRefusal(t, cfg.Validate(), tt.want)
			_, err := cfg.Mutate(inject.Input{Pod: podWith(t, nil, nil)})
			wantRefusal(t, err, tt.want)
		})
	}
	if err := (inject.Config{Image: "a"}).Validate(); err != nil {
		t.Errorf("Validate of nothing but an image: %v", err)
	}
}

// TestInstallationReachesTheSidecar: every setting of the installation.
func TestInstallationReachesTheSidecar(t *testing.T) {
	cfg := inject.Config{
		Image: "i", ImagePullPolicy: "Never", NativeSidecars: true, Mode: inject.ModeEnv, Port: 9000, OpsPort: 9001, Scrape: true, LogLevel: "warn",
		RunAsUser: 1234, TenantID: tenant2, Cloud: "usgov", TokenExpiration: 7200, CAConfigMap: "roots", HTTPSProxy: "http://proxy:3128", NoProxy: "10.0.0.0/8",
		Resources: inject.Resources{CPURequest: "1m", MemoryRequest: "2Mi", CPULimit: "3m", MemoryLimit: "4Mi"},
	}
	pod, res := injected(t, cfg, inject.Input{Pod: podWith(t, map[string]string{"svidecar.io/inject": "true"}, nil)})
	c := named(t, pod, "svidecar")
	sidecar := checkSettings(t, c)
	got := []string{
		c.Image, string(c.ImagePullPolicy), sidecar.Listen, sidecar.OpsListen, sidecar.LogLevel.String(), fmt.Sprint(*c.SecurityContext.RunAsUser),
		sidecar.TenantID, sidecar.Cloud, sidecar.AuthorityHost, sidecar.Audience, environ(c)["HTTPS_PROXY"], environ(c)["NO_PROXY"], environ(c)["SVIDECAR_AUTHORITY_CA_FILE"],
		resourcesOf(t, res.Patch), fmt.Sprint(c.Ports[0].ContainerPort) + c.Ports[0].Name,
		pod.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken.Audience, fmt.Sprint(*pod.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds),
		pod.Spec.Volumes[1].ConfigMap.Name, c.VolumeMounts[1].MountPath,
	}
	want := []string{
		"i", "Never", "127.0.0.1:9000", ":9001", "WARN", "1234",
		tenant2, "usgov", "https://login.microsoftonline.us/", "api://AzureADTokenExchangeUSGov", "http://proxy:3128", "10.0.0.0/8", "/etc/svidecar/ca/ca.crt",
		"requests cpu=1m memory=2Mi limits cpu=3m memory=4Mi", "9001svidecar-ops",
		"api://AzureADTokenExchangeUSGov", "7200",
		"roots", "/etc/svidecar/ca",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
