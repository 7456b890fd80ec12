# Runs Client.java's program. Java trusts what is in a store of its own kind alone, so
# Service Fabric's certificate is put into one, as docs/compatibility.md tells people to.
set -euo pipefail
here=$(dirname "$0")
flags=(-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData -Xmx128m) # each cell is a process: start fast
if [[ -n ${SSL_CERT_FILE:-} ]]; then
  store=(-keystore "$HOME/trusted.p12" -storepass changeit)
  keytool -importcert -noprompt -alias svidecar -file "$SSL_CERT_FILE" "${store[@]}" 2>/dev/null
  flags+=("-Djavax.net.ssl.trustStore=$HOME/trusted.p12" -Djavax.net.ssl.trustStorePassword=changeit)
fi
exec java "${flags[@]}" -cp "$here/classes:$here/lib/*" Client "$@"
