//go:build e2e && linux

package clients_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// consumerModule has what Go's consumers link, apart from the clients of the matrix,
// which are old on purpose.
var consumerModule = language{
	name: "consumers", lock: "go.sum", install: goBuild,
	command: func(dir string) []string { return []string{dir + "/client"} },
}

// consumer is a program that wants a token only to do something else with it.
type consumer struct {
	name, does string   // of the row
	argument   string   // tells the program
	language   language // whose program it is
	protocols  []string
	// task gives the line that the program gets and the value that must come back,
	// where it is that tenant's identity that asks.
	task func(tenant string) (line, want string)
}

var (
	consumerProtocols = []string{"IMDS", "IMDS by variable", "App Service"}
	azure             = running("azure-cli", "consume.py")
	consumers         = []consumer{
		{"azure-keyvault-secrets", "gets a secret", "azure-keyvault-secrets", running("python", "consume.py"), consumerProtocols, secretTask},
		{"@azure/keyvault-secrets", "gets a secret", "@azure/keyvault-secrets", running("node", "consume.mjs"), consumerProtocols, secretTask},
		{"azsecrets", "gets a secret", "azsecrets", consumerModule, []string{"IMDS", "App Service"}, secretTask},
		{"azure-cli", "`az keyvault secret show`", "az keyvault secret show", azure, consumerProtocols, secretTask},
		{"azure-cli", "`az account show`: the subscription that login found", "az account show", azure, consumerProtocols, subscriptionTask},
		{"azure-cli", "`az login --allow-no-subscriptions` where there is none", "az login --allow-no-subscriptions", azure, consumerProtocols, tenantTask},
		{"azure-cli", "`az group list`, `az group show`", "az group show", azure, consumerProtocols, groupTask},
		{"Azure.Identity", "`azmcp keyvault secret get`", "azmcp keyvault secret get", dotnet, consumerProtocols, secretTask},
		{"hashicorp/go-azure-sdk", "lists resource groups, gets one", "hashicorp/go-azure-sdk", consumerModule, []string{"IMDS", "IMDS by variable"}, groupTask},
	}
)

// running is a language of the matrix with another program.
func running(name, program string) language {
	l := languages[slices.IndexFunc(languages, func(l language) bool { return l.name == name })]
	client := l.command
	l.command = func(dir string) []string {
		command := client(dir)
		command[len(command)-1] = dir + "/" + program
		return command
	}
	return l
}

func secretTask(tenant string) (line, want string) {
	host, name := addressVaultHost, fmt.Sprintf("name-%d", serial.Add(1))
	if tenant == variableTenant {
		host = variableVaultHost
	}
	return "https://" + host + "/secrets/" + name, secretValue(tenant, name)
}

func groupTask(tenant string) (line, want string) {
	return "/subscriptions/" + subscriptionID(tenant) + "/resourceGroups/" + groupName, tenant
}

func subscriptionTask(tenant string) (line, want string) { return "", subscriptionID(tenant) }

func tenantTask(tenant string) (line, want string) {
	return strangerID, "N/A(tenant level account) " + tenant
}

// TestConsumers has what apps are written with use the tokens: a service that looks at
// them before it answers is the judge.
func TestConsumers(t *testing.T) {
	if skipped != "" {
		t.Skip(skipped)
	}
	w := newWorld(t)
	var b strings.Builder
	b.WriteString("| consumer | version | does | " + strings.Join(consumerProtocols, " | ") + " |\n|---|---|---|---|---|---|\n")
	for _, c := range consumers {
		command, versions := c.language.have(t)
		fmt.Fprintf(&b, "| %s | %s | %s |", c.name, versions[c.argument], c.does)
		for _, name := range consumerProtocols {
			fmt.Fprintf(&b, " %s |", w.consumeBy(t, command, c, name))
		}
		b.WriteString("\n")
	}
	requireTable(t, "consumers", b.String())
}

// TestAnotherTenantsVault: that a consumer gets its secret says something, because
// with the token of another tenant it does not.
func TestAnotherTenantsVault(t *testing.T) {
	if skipped != "" {
		t.Skip(skipped)
	}
	w, c := newWorld(t), consumers[0]
	command, _ := c.language.have(t)
	if got := w.consume(t, command, nil, c, addressTenant); got != good {
		t.Errorf("%s with a token of %s at its own vault: %s", c.name, addressTenant, got)
	}
	if got := w.consume(t, command, nil, c, variableTenant); got != "no" {
		t.Errorf("%s with a token of %s at the vault of %s: %s", c.name, addressTenant, variableTenant, got)
	}
}

// consumeBy has one consumer do its task by the named protocol.
func (w world) consumeBy(t *testing.T, command []string, c consumer, name string) string {
	t.Helper()
	for _, p := range protocols {
		if p.name == name && slices.Contains(c.protocols, name) {
			return w.consume(t, command, p.env(w.variable, w.dir), c, p.tenant)
		}
	}
	return none
}

// consume has one consumer do its task, as that tenant's identity.
func (w world) consume(t *testing.T, command, env []string, c consumer, tenant string) string {
	t.Helper()
	for _, name := range []string{"REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"} {
		env = append(env, name+"="+os.Getenv(caFile))
	}
	running := startClient(t, command, env, c.argument)
	defer running.end()
	line, want := c.task(tenant)
	got, err := running.ask(line)
	_, secret, isSecret := strings.Cut(line, "/secrets/")
	switch {
	case err != nil:
		t.Logf("%s: %v", c.argument, err)
		return "no"
	case got != want:
		t.Logf("%s: %q, want %q", c.argument, got, want)
		return "another answer"
	case isSecret && w.vaults.challenged(secret) == 0:
		return "without the challenge"
	}
	return good
}
