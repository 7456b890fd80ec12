package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/internal/config"
)

func TestLoadRefusesFlagsAndVariables(t *testing.T) {
	inDir(t, map[string]string{
		"short":   "tooshort\n",
		"spaced":  "sixteen characters and spaces",
		"empty":   "\n",
		"large":   strings.Repeat("x", 1<<20+1),
		"not.pem": "no certificate",
		"bad.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	})
	for _, tt := range []struct {
		name      string
		args, env []string
		want      string
		bareEnv   bool // do not add the minimal environment
	}{
		{name: "listen on all addresses", env: []string{"SVIDECAR_LISTEN=0.0.0.0:8000"},
			want: `listen (from env SVIDECAR_LISTEN): "0.0.0.0:8000" is not a loopback address: other machines could ask for tokens; use 127.0.0.1:8000, or add --unsafe-listen if that is what you want`},
		{name: "listen on no host", args: []string{"--listen=:8080"},
			want: `listen (from flag --listen): ":8080" is not a loopback address: other machines could ask for tokens; use 127.0.0.1:8080, or add --unsafe-listen if that is what you want`},
		{name: "listen on a name that begins like loopback", args: []string{"--listen=localhost.example:8080"},
			want: `listen (from flag --listen): "localhost.example:8080" is not a loopback address: other machines could ask for tokens; use 127.0.0.1:8080, or add --unsafe-listen if that is what you want`},
		{name: "Arc's keys in a relative directory", args: []string{"--arc-tokens-dir=keys"},
			want: `arc-tokens-dir (from flag --arc-tokens-dir): "keys" cannot be told to clients: give an absolute path without spaces, quotes and '='`},
		{name: "Arc's keys in a directory with a space", args: []string{"--arc-tokens-dir=/run/my keys"},
			want: `arc-tokens-dir (from flag --arc-tokens-dir): "/run/my keys" cannot be told to clients: give an absolute path without spaces, quotes and '='`},
		{name: "Arc's keys in a directory with an equals sign", args: []string{"--arc-tokens-dir=/run/a=b"},
			want: `arc-tokens-dir (from flag --arc-tokens-dir): "/run/a=b" cannot be told to clients: give an absolute path without spaces, quotes and '='`},
		{name: "no such protocol", args: []string{"--protocols=imds,vm"},
			want: `protocols (from flag --protocols): entry 2: "vm" is none of imds, appservice, azureml, cloudshell, servicefabric, arc`},
		{name: "a protocol twice", args: []string{"--protocols=imds,IMDS"},
			want: `protocols (from flag --protocols): entry 2: "imds" is listed twice: remove one`},
		{name: "Service Fabric without secret", args: []string{"--protocols=servicefabric"},
			want: `protocols (from flag --protocols): servicefabric needs a shared secret: add --identity-header-file`},
		{name: "Azure ML without secret", args: []string{"--protocols=azureml"},
			want: `protocols (from flag --protocols): azureml needs a shared secret: add --identity-header-file`},
		{name: "Arc beyond loopback", args: []string{"--protocols=arc", "--arc-listen=:40342", "--unsafe-listen"},
			want: `arc-listen (from flag --arc-listen): ":40342" is not a loopback address: use 127.0.0.1:40342`},
		{name: "Service Fabric beyond loopback", args: []string{"--protocols=servicefabric", "--servicefabric-listen=10.0.0.1:2377", "--identity-header=0123456789abcdef"},
			want: `servicefabric-listen (from flag --servicefabric-listen): "10.0.0.1:2377" is not a loopback address: use 127.0.0.1:2377`},
		{name: "Arc on the port of tokens", args: []string{"--protocols=arc", "--arc-listen=localhost:8000"},
			want: `arc-listen (from flag --arc-listen): "localhost:8000" takes the port of listen (default): give one of them another port`},
		{name: "Arc on the port of Service Fabric", args: []string{"--protocols=arc,servicefabric", "--arc-listen=127.0.0.1:2377", "--identity-header=0123456789abcdef"},
			want: `arc-listen (from flag --arc-listen): "127.0.0.1:2377" takes the port of servicefabric-listen (default): give one of them another port`},
		{name: "Metadata not required", args: []string{"--metadata-header-required=false"},
			want: `metadata-header-required (from flag --metadata-header-required): cannot be false: requests without the header Metadata are what protects from forged ones; mend the client that does not send it`},
		{name: "instance metadata from two places", args: []string{"--instance-metadata-file=a", "--instance-metadata-paths=instance"},
			want: `instance-metadata-file (from flag --instance-metadata-file): contradicts instance-metadata-paths (from flag --instance-metadata-paths): answer from the file, or pass requests on`},
		{name: "instance metadata blocked and passed on", args: []string{"--block-instance-metadata", "--instance-metadata-paths=instance"},
			want: `instance-metadata-paths (from flag --instance-metadata-paths): contradicts block-instance-metadata (from flag --block-instance-metadata): remove one of them`},
		{name: "the machine's tokens passed on", args: []string{"--instance-metadata-paths=/Identity/oauth2/token/"},
			want: `instance-metadata-paths (from flag --instance-metadata-paths): entry 1: "/Identity/oauth2/token/" is where the machine's own tokens are: it is never passed on`},
		{name: "a path with dots passed on", args: []string{"--instance-metadata-paths=instance/../identity"},
			want: `instance-metadata-paths (from flag --instance-metadata-paths): entry 1: "instance/../identity" is not a path below /metadata/: write it like instance/compute, in letters, digits and dashes`},
		{name: "a whole path passed on", args: []string{"--instance-metadata-paths=/metadata/instance"},
			want: `instance-metadata-paths (from flag --instance-metadata-paths): entry 1: "/metadata/instance" is not a path below /metadata/: write it like instance/compute, in letters, digits and dashes`},
		{name: "versions passed on", args: []string{"--instance-metadata-paths=versions"},
			want: `instance-metadata-paths (from flag --instance-metadata-paths): entry 1: "versions" is answered by svidecar: remove it`},
		{name: "listen without port", args: []string{"--listen=127.0.0.1"},
			want: `listen (from flag --listen): "127.0.0.1" is not host:port: write an address such as 127.0.0.1:8000 or [::1]:8000`},
		{name: "listen on too high a port", args: []string{"--listen=127.0.0.1:65536"},
			want: `listen (from flag --listen): "127.0.0.1:65536" has no port from 0 to 65535: write an address such as 127.0.0.1:8000`},
		{name: "listen on a named port", args: []string{"--ops-listen=:http"},
			want: `ops-listen (from flag --ops-listen): ":http" has no port from 0 to 65535: write an address such as 127.0.0.1:8000`},
		{name: "listen on a host with a space", args: []string{"--listen=a b:1"},
			want: `listen (from flag --listen): "a b:1" has a host that is neither an IP address nor a name: write an address such as 127.0.0.1:8000`},
		{name: "one port for both", args: []string{"--listen=127.0.0.1:8001"},
			want: `ops-listen (default): "127.0.0.1:8001" takes the port of listen (from flag --listen): give one of them another port`},
		{name: "one port for both by wildcard", args: []string{"--ops-listen=:8000"},
			want: `ops-listen (from flag --ops-listen): ":8000" takes the port of listen (default): give one of them another port`},
		{name: "one port for both by name", args: []string{"--ops-listen=localhost:8000"},
			want: `ops-listen (from flag --ops-listen): "localhost:8000" takes the port of listen (default): give one of them another port`},
		{name: "given twice", args: []string{"--listen=127.0.0.1:1", "--listen=127.0.0.1:2"},
			want: `listen (from flag --listen): the flag is given twice: give it once`},
		{name: "empty flag", args: []string{"--region="},
			want: `region (from flag --region): the value is empty: give one, or leave the setting out`},
		{name: "boolean", args: []string{"--unsafe-listen=yes"},
			want: `unsafe-listen (from flag --unsafe-listen): "yes" is neither true nor false`},
		{name: "level", env: []string{"SVIDECAR_LOG_LEVEL=loud"},
			want: `log-level (from env SVIDECAR_LOG_LEVEL): "loud" is none of debug, info, warn, error`},
		{name: "format", args: []string{"--log-format=xml"},
			want: `log-format (from flag --log-format): "xml" is none of json, text`},
		{name: "host with scheme", args: []string{"--allowed-hosts=a.example,http://b.example"},
			want: `allowed-hosts (from flag --allowed-hosts): entry 2: "http://b.example" is not a Host value: write a host or host:port, such as sidecar.internal:8000, without scheme, path or wildcard`},
		{name: "host wildcard", args: []string{"--allowed-hosts=*"},
			want: `allowed-hosts (from flag --allowed-hosts): entry 1: "*" is not a Host value: write a host or host:port, such as sidecar.internal:8000, without scheme, path or wildcard`},
		{name: "host bare IPv6", args: []string{"--allowed-hosts=::1"},
			want: `allowed-hosts (from flag --allowed-hosts): entry 1: "::1" is not a Host value: write a host or host:port, such as sidecar.internal:8000, without scheme, path or wildcard`},
		{name: "host empty", args: []string{"--allowed-hosts=a,,b"},
			want: `allowed-hosts (from flag --allowed-hosts): entry 2: "" is not a Host value: write a host or host:port, such as sidecar.internal:8000, without scheme, path or wildcard`},
		{name: "host twice", args: []string{"--allowed-hosts=a.example", "--allowed-hosts=A.example"},
			want: `allowed-hosts (from flag --allowed-hosts): entry 2: "a.example" is listed twice: remove one`},

		{name: "header short", env: []string{"SVIDECAR_IDENTITY_HEADER=15-characters-x"},
			want: `identity-header (from env SVIDECAR_IDENTITY_HEADER): the secret has fewer than 16 characters and could be guessed: make one with, for example, openssl rand -hex 32`},
		{name: "header long", args: []string{"--identity-header=" + strings.Repeat("x", 1025)},
			want: `identity-header (from flag --identity-header): the secret has more than 1024 characters: make one with, for example, openssl rand -hex 32`},
		{name: "header with space", args: []string{"--identity-header=sixteen characters"},
			want: `identity-header (from flag --identity-header): the secret holds a space, or a character that is not printable ASCII: make one with, for example, openssl rand -hex 32`},
		{name: "header beyond ASCII", args: []string{"--identity-header=sechzehn-Zeichen-ü"},
			want: `identity-header (from flag --identity-header): the secret holds a space, or a character that is not printable ASCII: make one with, for example, openssl rand -hex 32`},
		{name: "header twice over", args: []string{"--identity-header-file=short"}, env: []string{"SVIDECAR_IDENTITY_HEADER=" + header},
			want: `identity-header-file (from flag --identity-header-file): contradicts identity-header (from env SVIDECAR_IDENTITY_HEADER), which gives the same secret: remove one of them`},
		{name: "header file short", args: []string{"--identity-header-file=short"},
			want: `identity-header-file (from flag --identity-header-file): "short": the secret has fewer than 16 characters and could be guessed: make one with, for example, openssl rand -hex 32`},
		{name: "header file with spaces", args: []string{"--identity-header-file=spaced"},
			want: `identity-header-file (from flag --identity-header-file): "spaced": the secret holds a space, or a character that is not printable ASCII: make one with, for example, openssl rand -hex 32`},
		{name: "header file empty", args: []string{"--identity-header-file=empty"},
			want: `identity-header-file (from flag --identity-header-file): "empty": the secret has fewer than 16 characters and could be guessed: make one with, for example, openssl rand -hex 32`},
		{name: "header file large", args: []string{"--identity-header-file=large"},
			want: `identity-header-file (from flag --identity-header-file): larger than 1 MiB: correct the path, or write the secret there`},

		{name: "cloud", args: []string{"--cloud=germany"},
			want: `cloud (from flag --cloud): "germany" is none of public, usgov, china`},
		{name: "cloud and authority", args: []string{"--cloud=china"}, env: []string{"AZURE_AUTHORITY_HOST=https://login.microsoftonline.us/"},
			want: `cloud (from flag --cloud): "china" contradicts authority-host (from env AZURE_AUTHORITY_HOST), which belongs to "usgov": remove one of them`},
		{name: "authority by http", env: []string{"AZURE_AUTHORITY_HOST=http://login.microsoftonline.com/"},
			want: `authority-host (from env AZURE_AUTHORITY_HOST): "http://login.microsoftonline.com/" is not https: write it like https://host/`},
		{name: "authority bare", args: []string{"--authority-host=login.microsoftonline.com"},
			want: `authority-host (from flag --authority-host): "login.microsoftonline.com" is not https: write it like https://host/`},
		{name: "authority with path", args: []string{"--authority-host=https://login.microsoftonline.com/contoso.com"},
			want: `authority-host (from flag --authority-host): "https://login.microsoftonline.com/contoso.com" has a path: give only the host, such as https://login.microsoftonline.com/, and the tenant as tenant-id`},
		{name: "authority with query", args: []string{"--authority-host=https://login.microsoftonline.com/?"},
			want: `authority-host (from flag --authority-host): "https://login.microsoftonline.com/?" has a query or a fragment: remove what follows the ? or #`},
		{name: "authority with password", args: []string{"--authority-host=https://me:hunter2@login.example/"},
			want: `authority-host (from flag --authority-host): "…@login.example/" holds a user or password: remove what precedes the @`},
		{name: "authority without scheme but with password", args: []string{"--authority-host=me:hunter2@login.example"},
			want: `authority-host (from flag --authority-host): "…@login.example" is not https: write it like https://host/`},
		{name: "authority without host", args: []string{"--authority-host=https:///"},
			want: `authority-host (from flag --authority-host): "https:///" has no valid host: write it like https://host/`},
		{name: "authority with port zero", args: []string{"--authority-host=https://login.example:0/"},
			want: `authority-host (from flag --authority-host): "https://login.example:0/" has no valid host: write it like https://host/`},
		{name: "authority that is no URL", args: []string{"--authority-host=https://login.example\n"},
			want: `authority-host (from flag --authority-host): "https://login.example\n" is not a URL: write it like https://host/`},
		{name: "no certificate", args: []string{"--authority-ca-file=not.pem"},
			want: `authority-ca-file (from flag --authority-ca-file): "not.pem" holds no certificate: give a file of PEM certificates`},
		{name: "broken certificate", args: []string{"--authority-ca-file=bad.pem"},
			want: `authority-ca-file (from flag --authority-ca-file): "bad.pem" holds a certificate that does not parse: give a file of PEM certificates`},
		{name: "region by itself", args: []string{"--region=TryAutoDetect"},
			want: `region (from flag --region): "TryAutoDetect" would ask 169.254.169.254, which svidecar stands in for: name the region, or leave it out`},
		{name: "region", args: []string{"--region=west europe"},
			want: `region (from flag --region): "west europe" is not a region: name one such as westeurope, or leave it out to use the global endpoint`},

		{name: "no tenant", bareEnv: true, env: []string{"AZURE_FEDERATED_TOKEN_FILE=/token"},
			want: `tenant-id: not set, so there is no tenant to get tokens from: add --tenant-id, SVIDECAR_TENANT_ID or AZURE_TENANT_ID (which azure-workload-identity sets), or tenant-id in each of the identities`},
		{name: "many tenants", env: []string{"SVIDECAR_TENANT_ID=Common"},
			want: `tenant-id (from env SVIDECAR_TENANT_ID): "Common" stands for many tenants, and federated credentials belong to one: give that tenant's GUID or verified domain name`},
		{name: "tenant", args: []string{"--tenant-id=contoso"},
			want: `tenant-id (from flag --tenant-id): "contoso" is neither a GUID nor a domain name: give the tenant's GUID, or a verified domain such as contoso.onmicrosoft.com`},
		{name: "client id in braces", args: []string{"--client-id={aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa}"},
			want: `client-id (from flag --client-id): "{aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa}" is not a GUID: write it like 12345678-90ab-cdef-1234-567890abcdef`},
		{name: "client id without dashes", env: []string{"AZURE_CLIENT_ID=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
			want: `client-id (from env AZURE_CLIENT_ID): "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" is not a GUID: write it like 12345678-90ab-cdef-1234-567890abcdef`},

		{name: "no source", bareEnv: true, env: []string{"AZURE_TENANT_ID=" + tenant},
			want: `federated-token-file: not set, so there is nothing to prove an identity with: set --federated-token-file (azure-workload-identity sets AZURE_FEDERATED_TOKEN_FILE), --source spiffe with --spiffe-socket, --source local with --subject and --key-dir (or --key-file and --issuer), or --source github, google, exec or url`},
		{name: "source", args: []string{"--source=vault"},
			want: `source (from flag --source): "vault" is none of file, local, spiffe, github, google, exec, url`},
		{name: "spiffe without a socket", args: []string{"--source=spiffe"},
			want: `source (from flag --source): "spiffe" needs --spiffe-socket too (or SPIFFE_ENDPOINT_SOCKET): add it, such as unix:///run/spire/agent/public/api.sock`},
		{name: "chosen twice", args: []string{"--source=spiffe", "--spiffe-socket=unix:///run/api.sock", "--subject=spiffe://a/b", "--spiffe-hint=x"},
			want: `spiffe-hint (from flag --spiffe-hint): contradicts subject (from flag --subject), which chooses too: remove one of them`},
		{name: "socket that is a path", args: []string{"--source=spiffe", "--spiffe-socket=/run/api.sock"},
			want: `spiffe-socket (from flag --spiffe-socket): "/run/api.sock" is no address of a Workload API: write one such as unix:///run/spire/agent/public/api.sock or tcp://127.0.0.1:8089`},
		{name: "spiffe settings for a file source", args: []string{"--spiffe-socket=unix:///run/api.sock", "--federated-token-file=/t"},
			want: `spiffe-socket (from flag --spiffe-socket): is for --source spiffe, and contradicts source (default), which is "file": add --source spiffe, or remove spiffe-socket`},
		{name: "subject for a file source", args: []string{"--subject=spiffe://a/b", "--federated-token-file=/t"},
			want: `subject (from flag --subject): is for --source local or spiffe, and contradicts source (default), which is "file": add --source local, or remove subject`},
		{name: "file source without file", bareEnv: true, args: []string{"--source=file"}, env: []string{"AZURE_TENANT_ID=" + tenant},
			want: `source (from flag --source): "file" needs --federated-token-file too: add it`},
		{name: "local source without anything", args: []string{"--source=local"},
			want: `source (from flag --source): "local" needs --subject and --key-dir (or --key-file and --issuer) too: add what is missing`},
		{name: "local source without key", args: []string{"--source=local", "--issuer=https://issuer.example", "--subject=s"},
			want: `source (from flag --source): "local" needs --key-file too: add what is missing`},
		{name: "a directory of keys without subject", args: []string{"--source=local", "--key-dir=d"},
			want: `source (from flag --source): "local" needs --subject too: add what is missing`},
		{name: "a key and a directory of keys", args: []string{"--source=local", "--issuer=https://issuer.example", "--subject=s", "--key-file=k", "--key-dir=d"},
			want: `key-dir (from flag --key-dir): contradicts key-file (from flag --key-file), which names a key too: remove one of them`},
		{name: "rotation of a single key", args: []string{"--source=local", "--issuer=https://issuer.example", "--subject=s", "--key-file=k", "--rotate-every=720h", "--unsafe-unpublished-key"},
			want: `rotate-every (from flag --rotate-every): needs key-dir: a single key file is not rotated; add key-dir, or remove rotate-every` + "\n" +
				`unsafe-unpublished-key (from flag --unsafe-unpublished-key): needs key-dir: a single key file is not rotated; add key-dir, or remove unsafe-unpublished-key`},
		{name: "local settings for a file source", args: []string{"--key-file=/key", "--assertion-lifetime=5m"},
			want: `key-file (from flag --key-file): is for --source local, and contradicts source (default), which is "file": add --source local, or remove key-file` + "\n" +
				`assertion-lifetime (from flag --assertion-lifetime): is for --source local, and contradicts source (default), which is "file": add --source local, or remove assertion-lifetime`},
		{name: "file settings for a local source",
			args: []string{"--source=local", "--issuer=https://issuer.example", "--subject=s", "--key-file=k", "--federated-token-file=f"},
			want: `federated-token-file (from flag --federated-token-file): is for --source file, and contradicts source (from flag --source), which is "local": add --source file, or remove federated-token-file`},
		{name: "exec without a command", args: []string{"--source=exec"},
			want: `source (from flag --source): "exec" needs --exec-command too: add it`},
		{name: "url without a URL", args: []string{"--source=url"},
			want: `source (from flag --source): "url" needs --source-url too: add it`},
		{name: "settings of others for a github source", args: []string{"--source=github", "--google-metadata-host=a", "--exec-command=/x", "--exec-timeout=5s",
			"--source-url=https://a", "--source-url-bearer-file=b", "--source-url-field=c", "--source-url-ca-file=d"},
			want: foreign("google-metadata-host", "google") + "\n" + foreign("exec-command", "exec") + "\n" + foreign("exec-timeout", "exec") + "\n" +
				foreign("source-url", "url") + "\n" + foreign("source-url-bearer-file", "url") + "\n" + foreign("source-url-field", "url") + "\n" + foreign("source-url-ca-file", "url")},
		{name: "command line", args: []string{"--source=exec", "--exec-command=/usr/bin/x --password=y"},
			want: `exec-command (from flag --exec-command): the command holds white space: write the program and its arguments as a JSON list, such as ["/usr/local/bin/get-token", "--quiet"]`},
		{name: "command that is no list of texts", args: []string{"--source=exec", `--exec-command=["/usr/bin/x", 1]`},
			want: `exec-command (from flag --exec-command): not a JSON list of texts: write the program and its arguments like ["/usr/local/bin/get-token", "--quiet"]`},
		{name: "command without its end", args: []string{"--source=exec", `--exec-command=["/usr/bin/x"`},
			want: `exec-command (from flag --exec-command): not a JSON list of texts: write the program and its arguments like ["/usr/local/bin/get-token", "--quiet"]`},
		{name: "command of nothing", args: []string{"--source=exec", `--exec-command=[]`},
			want: `exec-command (from flag --exec-command): the list names no program: write the program and its arguments like ["/usr/local/bin/get-token", "--quiet"]`},
		{name: "command that is not UTF-8", args: []string{"--source=exec", "--exec-command=/\xff"},
			want: `exec-command (from flag --exec-command): the command is not UTF-8: write it so, or give it another name`},
		{name: "time of a command", args: []string{"--source=exec", "--exec-command=/x", "--exec-timeout=61s"},
			want: `exec-timeout (from flag --exec-timeout): "61s" is not a duration from 1s to 1m, such as 10s`},
		{name: "metadata host that is a URL", args: []string{"--source=google", "--google-metadata-host=http://a/"},
			want: `google-metadata-host (from flag --google-metadata-host): "http://a/" is not a Host value: write a host or host:port, such as sidecar.internal:8000, without scheme, path or wildcard`},
		{name: "token URL without a host", args: []string{"--source=url", "--source-url=/password"},
			want: `source-url (from flag --source-url): not a URL: write it like https://host/path`},
		{name: "token URL with a password", args: []string{"--source=url", "--source-url=https://u:password@a/"},
			want: `source-url (from flag --source-url): the URL holds a user or password: remove what precedes the @, and use --source-url-bearer-file`},
		{name: "token URL in the clear", args: []string{"--source=url", "--source-url=http://10.0.0.1/"},
			want: `source-url (from flag --source-url): the URL is neither https nor http to a loopback address (127.0.0.1 or [::1]), so tokens could be read on the way: write it like https://host/path`},
		{name: "token URL in the clear to a name", args: []string{"--source=url", "--source-url=http://localhost/"},
			want: `source-url (from flag --source-url): the URL is neither https nor http to a loopback address (127.0.0.1 or [::1]), so tokens could be read on the way: write it like https://host/path`},
		{name: "member", args: []string{"--source=url", "--source-url=https://a/", "--source-url-field=data..token"},
			want: `source-url-field (from flag --source-url-field): "data..token" is no member of a JSON object: write its name, or names with dots between them, such as data.token`},
		{name: "certificates of a token URL", args: []string{"--source=url", "--source-url=https://a/", "--source-url-ca-file=not.pem"},
			want: `source-url-ca-file (from flag --source-url-ca-file): "not.pem" holds no certificate: give a file of PEM certificates`},
		{name: "issuer", args: []string{"--issuer=http://issuer.example"},
			want: `issuer (from flag --issuer): "http://issuer.example" is not https: write it like https://host/`},
		{name: "subject", args: []string{"--subject=a b"},
			want: `subject (from flag --subject): "a b" holds white space or is longer than 600 characters: a federated credential cannot name it`},
		{name: "audience", args: []string{"--audience=" + strings.Repeat("a", 601)},
			want: `audience (from flag --audience): "` + strings.Repeat("a", 120) + `"… holds white space or is longer than 600 characters: a federated credential cannot name it`},
		{name: "path", args: []string{"--federated-token-file=/token "},
			want: `federated-token-file (from flag --federated-token-file): "/token " begins or ends with white space, or holds a control character: give a plain path`},

		{name: "lifetime", args: []string{"--assertion-lifetime=61m"},
			want: `assertion-lifetime (from flag --assertion-lifetime): "61m" is not a duration from 1m to 1h, such as 10s`},
		{name: "timeout", args: []string{"--exchange-timeout=10"},
			want: `exchange-timeout (from flag --exchange-timeout): "10" is not a duration from 1s to 30s, such as 10s`},
		{name: "delay", args: []string{"--shutdown-delay=-1s"},
			want: `shutdown-delay (from flag --shutdown-delay): "-1s" is not a duration from 0s to 5m, such as 10s`},
		{name: "prefetch of nobody", args: []string{"--prefetch=orders=https://vault.azure.net"},
			want: `prefetch (from flag --prefetch): "orders=https://vault.azure.net" names no identity of the list: write RESOURCE, or NAME=RESOURCE`},
		{name: "readiness without prefetch", args: []string{"--ready-requires-token"},
			want: `ready-requires-token (from flag --ready-requires-token): needs --prefetch too: say which tokens to wait for, such as https://vault.azure.net`},
		{name: "entries", args: []string{"--cache-entries=0"},
			want: `cache-entries (from flag --cache-entries): "0" is not a whole number from 1 to 1000000`},

		{name: "unknown variables", env: []string{"SVIDECAR_LISTN=x", "svidecar_region=x", "SVIDECAR_LOADTEST=1", "SVIDECAR_SPARE_PORT=1"},
			want: `environment: unknown variable "SVIDECAR_LISTN"; did you mean "SVIDECAR_LISTEN"?` + "\n" +
				`environment: unknown variable "SVIDECAR_LOADTEST"; unset it; --help lists the variables` + "\n" +
				`environment: unknown variable "SVIDECAR_SPARE_PORT"; unset it; --help lists the variables` + "\n" +
				`environment: unknown variable "svidecar_region"; did you mean "SVIDECAR_REGION"?`},
		{name: "an outranked value that was written for us", args: []string{"--log-level=info"}, env: []string{"SVIDECAR_LOG_LEVEL=loud"},
			want: `log-level (from env SVIDECAR_LOG_LEVEL): "loud" is none of debug, info, warn, error`},
		{name: "several at once", args: []string{"--cache-entries=many", "--client-id=me"}, env: []string{"SVIDECAR_LISTEN=here", "SVIDECAR_X=1"},
			want: `environment: unknown variable "SVIDECAR_X"; unset it; --help lists the variables` + "\n" +
				`listen (from env SVIDECAR_LISTEN): "here" is not host:port: write an address such as 127.0.0.1:8000 or [::1]:8000` + "\n" +
				`client-id (from flag --client-id): "me" is not a GUID: write it like 12345678-90ab-cdef-1234-567890abcdef` + "\n" +
				`cache-entries (from flag --cache-entries): "many" is not a whole number from 1 to 1000000`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := tt.env
			if !tt.bareEnv {
				env = with(minimal, tt.env...)
			}
			_, err := load(t, tt.args, env)
			wantError(t, err, tt.want)
		})
	}
}

// The texts of these come from the operating system.
func TestLoadRefusesMissingFiles(t *testing.T) {
	inDir(t, nil)
	for _, name := range []string{"config", "identity-header-file", "authority-ca-file"} {
		_, err := load(t, []string{"--" + name + "=nowhere"}, minimal)
		if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), name+" (from flag --"+name+"): open nowhere: ") {
			t.Errorf("Load(--%s=nowhere) = %v, want one that names the flag and the file", name, err)
		}
	}
	inDir(t, map[string]string{"svidecar.yaml": "sources:\n- {name: a, kind: url, url: 'http://[::1]/', ca-file: nowhere}\n"})
	_, err := load(t, []string{"--config=svidecar.yaml"}, minimal)
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "svidecar.yaml:2: sources[0].ca-file: open nowhere: ") {
		t.Errorf("a listed source's certificates: %v, want one that names the line and the file", err)
	}
}

func TestLoadRefusesFile(t *testing.T) {
	guid := func(i int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", i) }
	const rid = "/subscriptions/" + client + "/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
	for _, tt := range []struct{ name, yaml, want string }{
		{"unknown key", "log-level: info\nlistn: 127.0.0.1:1\n", `svidecar.yaml:2: unknown setting "listn"; did you mean "listen"?`},
		{"key in another style", "federatedTokenFile: /a\nclient_id: b\n",
			`svidecar.yaml:1: unknown setting "federatedTokenFile"; did you mean "federated-token-file"?` + "\n" +
				`svidecar.yaml:2: unknown setting "client_id"; did you mean "client-id"?`},
		{"key like nothing", "fruit: red\n", `svidecar.yaml:1: unknown setting "fruit"; --help lists the settings, and there are identities and sources`},
		{"key that may be a value", header + ": x\n", `svidecar.yaml:1: the key is not the name of a setting; --help lists the settings, and there are identities and sources`},
		{"key that is a list", "? [a]\n: b\n", `svidecar.yaml:1: the key is not the name of a setting; --help lists the settings, and there are identities and sources`},
		{"config in the config", "config: other.yaml\n", `svidecar.yaml:1: config: a file cannot name another: remove the line, and give the file as flag or variable`},
		{"repeated key", "region: a\n\nregion: b\n", `svidecar.yaml:3: "region" is given again, first on line 1: keep one`},
		{"list at the top", "- listen\n", `svidecar.yaml:1: wants settings, one "name: value" on each line`},
		{"text at the top", header, `svidecar.yaml:1: wants settings, one "name: value" on each line`},
		{"two documents", "region: a\n---\nregion: b\n", `svidecar.yaml:2: a second document begins here: keep one, and remove the --- line`},
		{"anchor", "region: &a b\n", `svidecar.yaml:1: anchors are not supported: remove it, or put the value in quotes if it begins with &`},
		{"alias", "region: &a b\naudience: *a\n",
			`svidecar.yaml:1: anchors are not supported: remove it, or put the value in quotes if it begins with &` + "\n" +
				`svidecar.yaml:2: aliases are not supported: write the value out, or put it in quotes if it begins with *`},
		{"alias of nothing", "identity-header: *" + header + "\n", `svidecar.yaml:1: not valid YAML, or a tag, anchor or alias, which are not supported: mend the line, or put its value in quotes`},
		{"merge", "<<: {region: a}\n", `svidecar.yaml:1: merge keys are not supported: write the settings out`},
		{"tag", "region: !!str a\n", `svidecar.yaml:1: tags are not supported: remove it, or put the value in quotes if it begins with !`},
		{"syntax", "region: a\nlisten: [b\n", `svidecar.yaml:3: not valid YAML: did not find expected ',' or ']' (while parsing a flow sequence that begins on line 2): mend the line, or put its value in quotes`},
		{"syntax of second document", "region: a\n---\nb: 'c\n", `svidecar.yaml:4: not valid YAML: found unexpected end of stream (while scanning a quoted scalar that begins on line 3): mend the line, or put its value in quotes`},
		{"not UTF-8", "region: a\naudience: \xff\n", `svidecar.yaml:2: the line is not UTF-8, or holds a control character: save the file as UTF-8 text`},
		{"control character", "region: a\x00\n", `svidecar.yaml:1: the line is not UTF-8, or holds a control character: save the file as UTF-8 text`},
		{"too large", "#" + strings.Repeat("x", 1<<20), `svidecar.yaml:1: the file is larger than 1 MiB: it is not a configuration of svidecar, or must be cut down`},

		{"number for text", "identity-header: 1234567890123456\n", `svidecar.yaml:1: identity-header: wants text, and YAML takes this for something else: put it in quotes`},
		{"list for text", "region: [a]\n", `svidecar.yaml:1: region: wants text`},
		{"text for boolean", "unsafe-listen: 'true'\n", `svidecar.yaml:1: unsafe-listen: wants true or false`},
		{"yes for boolean", "unsafe-listen: yes\n", `svidecar.yaml:1: unsafe-listen: wants true or false`},
		{"text for count", "cache-entries: '1'\n", `svidecar.yaml:1: cache-entries: wants a whole number`},
		{"hexadecimal count", "cache-entries: 0x10\n", `svidecar.yaml:1: cache-entries: "0x10" is not a whole number from 1 to 1000000`},
		{"number for duration", "exchange-timeout: 10\n", `svidecar.yaml:1: exchange-timeout: wants a duration with its unit, such as 10s`},
		{"text for list", "allowed-hosts: a.example\n", `svidecar.yaml:1: allowed-hosts: wants a list: write [a, b], or each entry on a line of its own after a dash`},
		{"entry with comma", "allowed-hosts:\n- a,b\n", `svidecar.yaml:2: allowed-hosts: entry 1: is empty or holds a comma: write each entry by itself`},
		{"empty list", "allowed-hosts: []\n", `svidecar.yaml:1: allowed-hosts: the value is empty: give one, or leave the setting out`},
		{"empty text", "region: ''\n", `svidecar.yaml:1: region: the value is empty: give one, or leave the setting out`},
		{"no value", "region:\n", `svidecar.yaml:1: region: the value is missing: give one, or remove the line`},
		{"bad value", "log-level: info\ntenant-id: contoso\n", `svidecar.yaml:2: tenant-id: "contoso" is neither a GUID nor a domain name: give the tenant's GUID, or a verified domain such as contoso.onmicrosoft.com`},
		{"contradiction", "listen: 0.0.0.0:1\n", `svidecar.yaml:1: listen: "0.0.0.0:1" is not a loopback address: other machines could ask for tokens; use 127.0.0.1:1, or add --unsafe-listen if that is what you want`},
		{"contradiction of two", "source: file\nkey-file: /k\n", `svidecar.yaml:2: key-file: is for --source local, and contradicts source (from file svidecar.yaml:1), which is "file": add --source local, or remove key-file`},

		{"no identities", "identities: []\n", `svidecar.yaml:1: identities: wants a list with at least one entry: add one, or remove identities`},
		{"identities that are none", "identities:\n- orders\n", `svidecar.yaml:2: identities[0]: wants settings, one "name: value" on each line`},
		{"unknown key of identity", "identities:\n- clientid: x\n", `svidecar.yaml:2: identities[0]: unknown setting "clientid"; did you mean "client-id"?`},
		{"strange key of identity", "identities:\n- colour: x\n",
			`svidecar.yaml:2: identities[0]: unknown setting "colour"; it may be name, client-id, tenant-id, object-id, resource-id, default, allowed-resources, source`},
		{"repeated key of identity", "identities:\n- name: a\n  name: b\n", `svidecar.yaml:3: identities[0]: "name" is given again, first on line 2: keep one`},
		{"values of identity", "identities:\n- name: a b\n  client-id: c\n  object-id: d\n  resource-id: /subscriptions/x/resourcegroups/g\n  default: maybe\n  allowed-resources: [https://a, b c]\n  tenant-id: consumers\n  source: ''\n",
			`svidecar.yaml:2: identities[0].name: "a b" is not a name: use at most 63 letters, digits, dots, dashes and underscores` + "\n" +
				`svidecar.yaml:3: identities[0].client-id: "c" is not a GUID: write it like 12345678-90ab-cdef-1234-567890abcdef` + "\n" +
				`svidecar.yaml:4: identities[0].object-id: "d" is not a GUID: write it like 12345678-90ab-cdef-1234-567890abcdef` + "\n" +
				`svidecar.yaml:5: identities[0].resource-id: "/subscriptions/x/resourcegroups/g" is not a user-assigned identity: write /subscriptions/<guid>/resourcegroups/<group>/providers/Microsoft.ManagedIdentity/userAssignedIdentities/<name>` + "\n" +
				`svidecar.yaml:6: identities[0].default: wants true or false` + "\n" +
				`svidecar.yaml:7: identities[0].allowed-resources: entry 2: "b c" is empty or holds white space: write a resource such as https://vault.azure.net` + "\n" +
				`svidecar.yaml:8: identities[0].tenant-id: "consumers" stands for many tenants, and federated credentials belong to one: give that tenant's GUID or verified domain name` + "\n" +
				`svidecar.yaml:9: identities[0].source: the value is empty: give one, or leave the setting out`},
		{"resource id of a subscription that is no GUID", "identities:\n- resource-id: /subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n\n",
			`svidecar.yaml:2: identities[0].resource-id: "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n" is not a user-assigned identity: write /subscriptions/<guid>/resourcegroups/<group>/providers/Microsoft.ManagedIdentity/userAssignedIdentities/<name>`},
		{"empty resource", "identities:\n- allowed-resources: ['']\n", `svidecar.yaml:2: identities[0].allowed-resources: entry 1: is empty or holds a comma: write each entry by itself`},
		{"identity without client id", "identities:\n- name: a\n", `svidecar.yaml:2: identities[0]: no client-id: add that of the application or managed identity`},
		{"identities alike", "identities:\n" +
			"- {name: a, client-id: " + guid(1) + ", object-id: " + client + ", resource-id: " + rid + "n}\n" +
			"- {name: A, client-id: " + guid(2) + ", object-id: " + strings.ToUpper(client) + ", resource-id: " + strings.ToUpper(rid) + "N}\n" +
			"- {name: b, client-id: " + guid(1) + ", tenant-id: " + tenant + "}\n",
			`svidecar.yaml:3: identities[1].name: "A" is already that of identities[0].name (from file svidecar.yaml:2): correct one, or remove one of the entries` + "\n" +
				`svidecar.yaml:3: identities[1].object-id: "` + client + `" is already that of identities[0].object-id (from file svidecar.yaml:2): correct one, or remove one of the entries` + "\n" +
				`svidecar.yaml:3: identities[1].resource-id: "/SUBSCRIPTIONS/AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA/RESOURCEGROUPS/G/PROVIDERS/MICROSOFT.MANAGEDIDENTITY/USERASSIGNEDIDE"… is already that of identities[0].resource-id (from file svidecar.yaml:2): correct one, or remove one of the entries` + "\n" +
				`svidecar.yaml:4: identities[2].client-id: "` + guid(1) + `" is already that of identities[0].client-id (from file svidecar.yaml:2) in the same tenant: correct one, or remove one of the entries`},
		{"one client id in two tenants without names", "identities:\n- client-id: " + client + "\n- client-id: " + client + "\n  tenant-id: " + tenant2 + "\n",
			`svidecar.yaml:3: identities[1].name: "` + client + `" is already that of identities[0].name (from file svidecar.yaml:2): correct one, or remove one of the entries`},
		{"two defaults", "identities:\n- client-id: " + client + "\n  default: true\n- client-id: " + client2 + "\n  default: true\n",
			`svidecar.yaml:5: identities[1].default: identities[0] (from file svidecar.yaml:2) is the default already: mark one of them only`},
		{"client id of no identity", "client-id: " + client2 + "\nidentities:\n- client-id: " + client + "\n",
			`svidecar.yaml:1: client-id: "` + client2 + `" is none of the identities: add it to them, or remove client-id`},
		{"client id of another identity than the default", "client-id: " + client2 + "\nidentities:\n- client-id: " + client + "\n  default: true\n- client-id: " + client2 + "\n",
			`svidecar.yaml:1: client-id: "` + client2 + `" contradicts identities[0].default (from file svidecar.yaml:4), which marks "` + client + `" as the default: remove one of them`},
		{"client id of two identities", "client-id: " + client + "\nidentities:\n" +
			"- {name: a, client-id: " + client + ", tenant-id: a.example}\n- {name: b, client-id: " + client + ", tenant-id: b.example}\n",
			`svidecar.yaml:1: client-id: "` + client + `" is the client id of 2 identities, in different tenants: mark one of them with default: true`},
		{"identity of an unknown source", "identities:\n- client-id: " + client + "\n  source: projcted\nsources:\n- {name: projected, kind: file, path: /p}\n",
			`svidecar.yaml:3: identities[0].source: no source is called "projcted"; did you mean "projected"?`},

		{"no sources", "sources: []\n", `svidecar.yaml:1: sources: wants a list with at least one entry: add one, or remove sources`},
		{"source without anything", "sources:\n- audience: a\n",
			`svidecar.yaml:2: sources[0]: no name: add one, for identities to refer to` + "\n" +
				`svidecar.yaml:2: sources[0]: no kind: add one of file, local, spiffe, github, google, exec, url`},
		{"sources alike", "sources:\n- {name: a, kind: file, path: /p}\n- {name: a, kind: file, path: /q}\n",
			`svidecar.yaml:3: sources[1].name: "a" is already that of sources[0].name (from file svidecar.yaml:2): correct one, or remove one of the entries`},
		{"source called default", "sources:\n- {name: default, kind: file, path: /p}\n",
			`svidecar.yaml:2: sources[0].name: "default" is the name of the source that federated-token-file (from env AZURE_FEDERATED_TOKEN_FILE) makes: choose another name, or remove one of them`},
		{"source called default beside a local one", "source: local\nissuer: https://i.example\nsubject: s\nkey-file: k\nsources:\n- {name: default, kind: file, path: /p}\n",
			`svidecar.yaml:6: sources[0].name: "default" is the name of the source that source (from file svidecar.yaml:1) makes: choose another name, or remove one of them`},
		{"local source with key and directory", "sources:\n- name: a\n  kind: local\n  subject: s\n  key-file: k\n  key-dir: d\n",
			`svidecar.yaml:6: sources[0].key-dir: contradicts sources[0].key-file (from file svidecar.yaml:5), which names a key too: remove one of them`},
		{"sources of other issuers without anything", "sources:\n- {name: a, kind: exec}\n- {name: b, kind: url, timeout: 5s}\n- {name: c, kind: github, metadata-host: m}\n- {name: d, kind: google, url: 'https://a'}\n",
			`svidecar.yaml:2: sources[0]: kind exec needs command: add it` + "\n" +
				`svidecar.yaml:3: sources[1]: kind url needs url: add it` + "\n" +
				`svidecar.yaml:3: sources[1].timeout: contradicts sources[1].kind (from file svidecar.yaml:3), which is "url": remove it, or correct the kind` + "\n" +
				`svidecar.yaml:4: sources[2].metadata-host: contradicts sources[2].kind (from file svidecar.yaml:4), which is "github": remove it, or correct the kind` + "\n" +
				`svidecar.yaml:5: sources[3].url: contradicts sources[3].kind (from file svidecar.yaml:5), which is "google": remove it, or correct the kind`},
		{"command of numbers", "exec-command: [/x, 1]\n", `svidecar.yaml:1: exec-command: entry 2: wants text, and YAML takes this for something else: put it in quotes`},
		{"command that is a mapping", "exec-command: {a: b}\n", `svidecar.yaml:1: exec-command: wants a list of texts, or one text`},
		{"file source without path", "sources:\n- name: a\n  kind: file\n  key-file: /k\n",
			`svidecar.yaml:2: sources[0]: kind file needs path: add it` + "\n" +
				`svidecar.yaml:4: sources[0].key-file: contradicts sources[0].kind (from file svidecar.yaml:3), which is "file": remove it, or correct the kind`},
		{"local source without anything", "sources:\n- name: a\n  kind: local\n  path: /p\n",
			`svidecar.yaml:2: sources[0]: kind local needs issuer: add it` + "\n" +
				`svidecar.yaml:2: sources[0]: kind local needs subject: add it` + "\n" +
				`svidecar.yaml:2: sources[0]: kind local needs key-file: add it` + "\n" +
				`svidecar.yaml:4: sources[0].path: contradicts sources[0].kind (from file svidecar.yaml:3), which is "local": remove it, or correct the kind`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := loadFile(t, tt.yaml)
			wantError(t, err, tt.want)
		})
	}
}

func TestLoadRefusesListsThatTheEnvironmentLeavesOpen(t *testing.T) {
	const twoSources = "sources:\n- {name: a, kind: file, path: /a}\n- {name: b, kind: file, path: /b}\n"
	for _, tt := range []struct{ name, yaml, want string }{
		{"identities without tenant", "identities:\n- client-id: " + client + "\nsources:\n- {name: a, kind: file, path: /a}\n",
			`svidecar.yaml:2: identities[0]: no tenant: add --tenant-id, SVIDECAR_TENANT_ID or AZURE_TENANT_ID (which azure-workload-identity sets), or tenant-id in each of the identities`},
		{"several sources and no identities", "tenant-id: a.example\n" + twoSources,
			`svidecar.yaml:3: sources[0]: there are several sources and no identities to choose among them: name one of them "default", or list identities`},
		{"several sources and an identity without", "tenant-id: a.example\nidentities:\n- client-id: " + client + "\n" + twoSources,
			`svidecar.yaml:3: identities[0]: no source, and there are several: add source, one of a, b`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inDir(t, map[string]string{"svidecar.yaml": tt.yaml})
			_, err := load(t, nil, []string{"SVIDECAR_CONFIG=svidecar.yaml"})
			wantError(t, err, tt.want)
		})
	}
}

func TestLoadBoundsItsErrors(t *testing.T) {
	_, err := loadFile(t, strings.Repeat("a: b\n", 1000))
	if err == nil {
		t.Fatal("Load accepts 1000 unknown keys")
	}
	lines := strings.Split(err.Error(), "\n")
	const last = "svidecar.yaml:51: this and further problems are left out: mend the ones above first"
	if len(lines) != 51 || lines[50] != last {
		t.Errorf("Load gave %d errors, the last %q, want 51 and %q", len(lines), lines[len(lines)-1], last)
	}
}

// A nil flag set and a set without our flags both mean that there are no flags.
func TestLoadWithoutFlags(t *testing.T) {
	if _, err := config.Load(nil, minimal); err != nil {
		t.Errorf("Load(nil, %q): %v", minimal, err)
	}
}

// foreign is the refusal of a flag that belongs to another kind than github.
func foreign(name, kind string) string {
	return fmt.Sprintf("%[1]s (from flag --%[1]s): is for --source %[2]s, and contradicts source (from flag --source), which is \"github\": add --source %[2]s, or remove %[1]s", name, kind)
}
