//go:build e2e && linux

package clients_test

import (
	"fmt"
	"strings"
	"testing"
)

// dotnet is Azure's MCP server, a program in .NET that Python's registry has with its
// runtime in it: the compiler and the packages of .NET are in none of the registries
// that the others come from.
var dotnet = language{
	name: "dotnet", lock: "requirements.txt",
	install: func(string) [][]string { return virtualEnvironment("venv", "requirements.txt") },
	command: func(dir string) []string { return []string{dir + "/venv/bin/python", dir + "/consume.py"} },
}

// TestDotNet has the program list its subscriptions, which are the identity's by whose
// token it asks, over each protocol.
func TestDotNet(t *testing.T) {
	if skipped != "" {
		t.Skip(skipped)
	}
	w := newWorld(t)
	task := consumer{argument: "azmcp subscription list", task: subscriptionTask}
	command, versions := dotnet.have(t)
	var b strings.Builder
	b.WriteString("| client | version | protocol | system-assigned | client id |\n|---|---|---|---|---|\n")
	for _, p := range protocols {
		fmt.Fprintf(&b, "| Azure.Identity | %s | %s |", versions[task.argument], p.name)
		for _, identity := range []string{"", chosenClient} {
			env := append(p.env(w.variable, w.dir), "AZURE_CLIENT_ID="+identity)
			fmt.Fprintf(&b, " %s |", w.consume(t, command, env, task, p.tenant))
		}
		b.WriteString("\n")
	}
	requireTable(t, "dotnet", b.String())
}
