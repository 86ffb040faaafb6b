// A trusted issuer in Node.js: the keys and the tokens of a platform, by jose. Called by federated_clients.py:
//   node issuer.mjs keys            prints a private key for each algorithm, as JWKs
//   node issuer.mjs sign < orders   signs [{"key", "header", "claims"}], and prints the tokens
import * as jose from 'jose'

const ALGORITHMS = ['RS256', 'ES256', 'EdDSA', 'PS256']

async function makeKey(alg) {
  const { privateKey } = await jose.generateKeyPair(alg, { extractable: true })
  return [alg, { ...(await jose.exportJWK(privateKey)), alg, kid: alg.toLowerCase() }]
}

async function sign({ key, header, claims }) {
  const secret = key.kty === 'oct' ? jose.base64url.decode(key.k) : await jose.importJWK(key, header.alg)
  return new jose.SignJWT(claims).setProtectedHeader(header).sign(secret)
}

if (process.argv[2] === 'keys') {
  console.log(JSON.stringify(Object.fromEntries(await Promise.all(ALGORITHMS.map(makeKey)))))
} else {
  let text = ''
  for await (const chunk of process.stdin) text += chunk
  console.log(JSON.stringify(await Promise.all(JSON.parse(text).map(sign))))
}
