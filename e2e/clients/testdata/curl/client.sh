# Asks for a token for each resource on standard input by curl, as Microsoft's
# documentation tells people to.
#
# Usage: client.sh CLIENT SELECTOR [VALUE], or client.sh versions. Each line of input
# gets one line of JSON: a token or an error.
set -euo pipefail
if [[ $1 == versions ]]; then
  echo '{"curl": "the system'"'"'s"}'
  exit
fi
case $2 in
  system) selector=() ;;
  resource_id) selector=(--data-urlencode "mi_res_id=$3") ;;
  *) selector=(--data-urlencode "$2=$3") ;;
esac
if [[ -n ${IDENTITY_HEADER:-} ]]; then
  request=(-H "X-IDENTITY-HEADER: $IDENTITY_HEADER" -d api-version=2019-08-01 "$IDENTITY_ENDPOINT")
else
  host=${AZURE_POD_IDENTITY_AUTHORITY_HOST:-http://169.254.169.254}
  request=(-H Metadata:true -d api-version=2018-02-01 "$host/metadata/identity/oauth2/token")
fi
while read -r resource; do
  reply=$(curl -s --max-time 20 --get "${request[@]}" --data-urlencode "resource=$resource" "${selector[@]}") || reply="curl: status $?"
  token=$(sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p' <<<"$reply")
  if [[ -n $token ]]; then
    echo "{\"token\": \"$token\"}"
  else
    echo "{\"error\": \"${reply//[\"\\]/}\"}"
  fi
done
