// OAuth clients and resource servers of Node.js, unmodified and as their documentation says. Called by node_clients.py:
//   node clients.mjs keys            prints a private key for each algorithm, as JWKs
//   node clients.mjs check < world   checks a running server, and prints {"passed", "failures"}
import * as jose from 'jose'
import * as oauth from 'oauth4webapi'
import * as client from 'openid-client'
import simple from 'simple-oauth2'
import { expressServers } from './servers.mjs'

const ALGORITHMS = ['ES256', 'ES384', 'Ed25519', 'PS256', 'RS256', 'RS384']
let passed = 0
const failures = []

function check(ok, what) {
  if (ok) passed += 1
  else failures.push(what)
}

/** Runs a story; what it throws is a failure. */
async function story(name, tell) {
  try {
    await tell()
  } catch (error) {
    failures.push(`${name}: ${error.name}: ${error.message} ${JSON.stringify(error.cause ?? '')}`)
  }
}

async function refused(name, promise, code) {
  try {
    await promise
    failures.push(`${name}: was not refused`)
  } catch (error) {
    // openid-client tells a 401 with a challenge by its status alone.
    const told = error.error ?? error.cause?.error ?? (error.status === 401 ? 'invalid_client' : undefined)
    check(told === code, `${name}: ${told} is not ${code}`)
  }
}

async function makeKeys() {
  const keys = {}
  for (const alg of ALGORITHMS) {
    const { privateKey } = await jose.generateKeyPair(alg, { extractable: true })
    keys[alg] = { ...(await jose.exportJWK(privateKey)), alg, kid: alg }
  }
  return keys
}

async function openidClient(world) {
  const issuer = new URL(world.issuer)
  const scope = 'api:read'
  for (const algorithm of ['oidc', 'oauth2']) {
    await story(`openid-client, discovery ${algorithm}`, async () => {
      for (const method of [client.ClientSecretBasic, client.ClientSecretPost]) {
        const config = await client.discovery(issuer, 'secret', undefined, method(world.secret), { algorithm })
        const tokens = await client.clientCredentialsGrant(config, { scope, resource: world.api })
        check(tokens.token_type === 'bearer' && tokens.expires_in === 3600, 'openid-client, a token by secret')
      }
    })
  }
  for (const [alg, jwk] of Object.entries(world.keys)) {
    await story(`openid-client, private_key_jwt by ${alg}`, async () => {
      const key = await jose.importJWK(jwk, alg)
      const method = client.PrivateKeyJwt({ key, kid: alg })
      const config = await client.discovery(issuer, alg, undefined, method)
      const tokens = await client.clientCredentialsGrant(config, { scope, resource: world.api })
      check(typeof tokens.access_token === 'string', `openid-client, a token by ${alg}`)
    })
  }
  await story('openid-client, DPoP, introspection, revocation', async () => {
    const config = await client.discovery(issuer, 'secret', undefined, client.ClientSecretBasic(world.secret))
    const pair = await client.randomDPoPKeyPair()
    const DPoP = client.getDPoPHandle(config, pair)
    const tokens = await client.clientCredentialsGrant(config, { scope, resource: world.api }, { DPoP })
    check(tokens.token_type === 'dpop', 'openid-client, a token bound to a key')
    const api = await client.discovery(issuer, 'api', undefined, client.ClientSecretBasic(world.apiSecret))
    const told = await client.tokenIntrospection(api, tokens.access_token)
    check(told.active && told.client_id === 'secret' && typeof told.cnf.jkt === 'string', 'openid-client, introspection')
    await client.tokenRevocation(config, tokens.access_token)
    check((await client.tokenIntrospection(api, tokens.access_token)).active === false, 'openid-client, revocation')
  })
  await story('openid-client, refusals', async () => {
    const config = await client.discovery(issuer, 'secret', undefined, client.ClientSecretBasic('wrong-and-long-enough'))
    await refused('openid-client, a wrong secret', client.clientCredentialsGrant(config, { scope }), 'invalid_client')
    const right = await client.discovery(issuer, 'secret', undefined, client.ClientSecretBasic(world.secret))
    await refused('openid-client, a scope', client.clientCredentialsGrant(right, { scope: 'x' }), 'invalid_scope')
  })
}

async function resourceServers(world) {
  const issuer = new URL(world.issuer)
  const discovered = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' })
  const as = await oauth.processDiscoveryResponse(issuer, discovered)
  const asked = async (method, parameters, options) => {
    const who = { client_id: 'secret' }
    const response = await oauth.clientCredentialsGrantRequest(as, who, method, parameters, options)
    return oauth.processClientCredentialsResponse(as, who, response)
  }
  const basic = oauth.ClientSecretBasic(world.secret)
  const request = (headers) => new Request(`${world.api}/data`, { headers })
  await story('oauth4webapi, an access token', async () => {
    const tokens = await asked(basic, { scope: 'api:read', resource: world.api })
    const claims = await oauth.validateJwtAccessToken(as, request({ authorization: `Bearer ${tokens.access_token}` }), world.api)
    check(claims.client_id === 'secret' && claims.scope === 'api:read', 'oauth4webapi, the claims of a token')
  })
  await story('oauth4webapi, a token bound to a key', async () => {
    const pair = await oauth.generateKeyPair('ES256')
    const DPoP = oauth.DPoP({ client_id: 'secret' }, pair)
    const tokens = await asked(basic, { scope: 'api:read', resource: world.api }, { DPoP })
    check(tokens.token_type === 'dpop', 'oauth4webapi, a token bound to a key')
  })
  await story('jose, the key set', async () => {
    const tokens = await asked(basic, { scope: 'api:read', resource: world.api })
    const keys = jose.createRemoteJWKSet(new URL(as.jwks_uri))
    const terms = { issuer: world.issuer, audience: world.api, typ: 'at+jwt' }
    const { payload, protectedHeader } = await jose.jwtVerify(tokens.access_token, keys, terms)
    check(payload.sub === 'secret' && protectedHeader.alg === 'ES256', 'jose, a verified token')
  })
  await story('jose, a token of typ JWT', async () => {
    const tokens = await asked(basic, { scope: 'plain:read', resource: world.plain })
    const keys = jose.createRemoteJWKSet(new URL(as.jwks_uri))
    const { protectedHeader } = await jose.jwtVerify(tokens.access_token, keys, { audience: world.plain, typ: 'JWT' })
    check(protectedHeader.typ === 'JWT', 'jose, a token of typ JWT')
  })
}

async function simpleOauth2(world) {
  for (const authorizationMethod of ['header', 'body']) {
    await story(`simple-oauth2, ${authorizationMethod}`, async () => {
      const config = {
        client: { id: 'secret', secret: world.secret },
        auth: { tokenHost: world.issuer, tokenPath: '/token', revokePath: '/revoke' },
        options: { authorizationMethod },
      }
      const token = await new simple.ClientCredentials(config).getToken({ scope: 'api:read', resource: world.api })
      check(!token.expired() && token.token.token_type === 'Bearer', 'simple-oauth2, a token')
      await token.revoke('access_token')
      check(true, 'simple-oauth2, a revocation')
    })
  }
}

if (process.argv[2] === 'keys') {
  console.log(JSON.stringify(await makeKeys()))
} else {
  let text = ''
  for await (const chunk of process.stdin) text += chunk
  const world = JSON.parse(text)
  await openidClient(world)
  await resourceServers(world)
  await simpleOauth2(world)
  await expressServers(world, story, check)
  console.log(JSON.stringify({ passed, failures }))
}
