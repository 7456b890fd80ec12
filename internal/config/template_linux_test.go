package config_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// inPod marks the process that has a file system as kubelet makes it for a pod.
const inPod = "CONFIG_TEST_IS_IN_A_POD"

// TestTemplateMountedNamespace reads the file that kubelet mounts into pods, in a
// process of its own whose /var/run nobody else sees.
func TestTemplateMountedNamespace(t *testing.T) {
	if os.Getenv(inPod) != "" {
		readMountedNamespace(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inPod+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	switch {
	case cmd.ProcessState == nil:
		t.Skipf("*** NOT TESTED: no mount namespace can be made here (%v) ***", err)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	case err != nil || !strings.Contains(string(out), "--- PASS"):
		t.Errorf("%v\n%s", err, out)
	}
}

func readMountedNamespace(t *testing.T) {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Skipf("*** NOT TESTED: mount: %v ***", err)
	}
	if err := syscall.Mount("none", "/var/run", "tmpfs", 0, ""); err != nil {
		t.Skipf("*** NOT TESTED: mount: %v ***", err)
	}
	const file, subject = "/var/run/secrets/kubernetes.io/serviceaccount/namespace", "spiffe://a.example/{{namespace}}"
	_, err := templated(t, subject)
	wantError(t, err, `subject (from flag --subject): {{namespace}} has no value: set SVIDECAR_POD_NAMESPACE; in a pod by valueFrom: {fieldRef: {fieldPath: metadata.namespace}}`)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ text, value, from string }{
		{"shop", "spiffe://a.example/shop", "flag --subject; namespace from file " + file},
		{"shop\n", "spiffe://a.example/shop", "flag --subject; namespace from file " + file},
		{"shop/sa/admin", "", ""},
	} {
		if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := templated(t, subject)
		if tt.value == "" {
			wantError(t, err, `subject (from flag --subject): {{namespace}} is "`+tt.text+`" (file `+file+`), which is not one segment of a SPIFFE ID: give a value of letters, digits, dots, dashes and underscores`)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if value, from := shown(t, c, "subject"); value != tt.value || from != tt.from {
			t.Errorf("%q gives %q from %q, want %q from %q", tt.text, value, from, tt.value, tt.from)
		}
	}
	c, err := templated(t, subject, pod...)
	if err != nil || c.Subject != "spiffe://a.example/shop" {
		t.Errorf("with the variable too: %v, %v", c, err)
	}
}
