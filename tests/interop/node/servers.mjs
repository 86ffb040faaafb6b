// Resource servers of Node.js, unmodified and as their documentation says: Express with express-oauth2-jwt-bearer, and
// with passport-jwt and jwks-rsa. Called by clients.mjs.
import { mock } from 'node:test'

import express from 'express'
import { auth, requiredScopes } from 'express-oauth2-jwt-bearer'
import { passportJwtSecret } from 'jwks-rsa'
import * as client from 'openid-client'
import { Passport } from 'passport'
import { ExtractJwt, Strategy } from 'passport-jwt'

const listening = []

/** Starts the application on a free port, and returns a function that sends it a request with a token. */
async function listen(app) {
  const server = app.listen(0, '127.0.0.1')
  listening.push(server)
  await new Promise((resolve) => server.once('listening', resolve))
  const url = `http://127.0.0.1:${server.address().port}`
  const get = async (path, token) => {
    const response = await fetch(url + path, { headers: token ? { authorization: `Bearer ${token}` } : {} })
    return told(response)
  }
  return { url, get }
}

/** The status of an answer, and either the client's id or the reason of the refusal. */
async function told(response) {
  const json = response.headers.get('content-type').startsWith('application/json')
  const { client, reason } = json ? await response.json() : {}
  const challenge = response.headers.get('www-authenticate') ?? ''
  const described = /error_description="([^"]*)"/.exec(challenge)?.[1]
  return `${response.status} ${client ?? reason ?? described ?? response.statusText}`
}

/** The endpoints /read and /write under express-oauth2-jwt-bearer. */
function bearer(options) {
  const app = express()
  app.set('env', 'test') // The default error handler then writes no stack to stderr.
  app.use(auth(options))
  const answer = (req, res) => res.json({ client: req.auth.payload.client_id })
  app.get('/read', requiredScopes('api:read'), answer)
  app.get('/write', requiredScopes('api:write'), answer)
  app.get('/any', answer)
  return listen(app)
}

/** The endpoint /any under passport-jwt, with a custom callback that tells why a token is refused. */
function passportJwt(options) {
  const passport = new Passport()
  const jwt = {
    jwtFromRequest: ExtractJwt.fromAuthHeaderAsBearerToken(),
    secretOrKeyProvider: passportJwtSecret({
      cache: true,
      rateLimit: true,
      jwksRequestsPerMinute: 5,
      jwksUri: options.jwksUri,
    }),
    issuer: options.issuer,
    audience: options.audience,
    algorithms: ['ES256'],
  }
  passport.use(new Strategy(jwt, (payload, done) => done(null, { id: payload.client_id })))
  const app = express()
  app.get('/any', (req, res, next) => {
    passport.authenticate('jwt', { session: false }, (error, user, info) => {
      if (error) next(error)
      else if (user) res.json({ client: user.id })
      else res.status(401).json({ reason: info.message })
    })(req, res, next)
  })
  return listen(app)
}

/** The token with another signature. */
function altered(token) {
  const [header, claims, signature] = token.split('.')
  const other = signature[9] === 'A' ? 'B' : 'A'
  return `${header}.${claims}.${signature.slice(0, 9)}${other}${signature.slice(10)}`
}

/** Calls with this time on the clock, in seconds. */
async function at(now, call) {
  mock.timers.enable({ apis: ['Date'], now: now * 1000 })
  try {
    return await call()
  } finally {
    mock.timers.reset()
  }
}

export async function expressServers(world, story, check) {
  const issuer = new URL(world.issuer)
  const discovered = () => client.discovery(issuer, 'secret', undefined, client.ClientSecretBasic(world.secret))
  const config = await discovered()
  const token = async (scope, resource) => {
    const answer = await client.clientCredentialsGrant(config, { scope, resource })
    return answer.access_token
  }
  const same = (found, expected, what) => check(found === expected, `${what}: ${found} is not ${expected}`)

  const issuerBaseURL = world.issuer
  const { jwks_uri: jwksUri } = config.serverMetadata()
  const bearerApi = await bearer({ issuerBaseURL, audience: world.api })
  const strictApi = await bearer({ issuerBaseURL, audience: world.api, strict: true })
  const passportApi = await passportJwt({ jwksUri, issuer: world.issuer, audience: world.api })

  const both = await token('api:read api:write', world.api)
  const narrow = await token('api:read', world.api)
  const other = await token('api:read', world.other)
  const plain = await token('plain:read', world.plain)

  for (const [mode, api] of Object.entries({ 'not strict': bearerApi, strict: strictApi })) {
    await story(`express-oauth2-jwt-bearer, ${mode}`, async () => {
      const name = `express-oauth2-jwt-bearer, ${mode}`
      for (const path of ['/read', '/write']) same(await api.get(path, both), '200 secret', `${name}, ${path}`)
      same(await api.get('/read', narrow), '200 secret', `${name}, the scope of the token`)
      same(await api.get('/write', narrow), '403 Insufficient Scope', `${name}, another scope`)
      same(await api.get('/read'), '401 Unauthorized', `${name}, no token`)
      same(await api.get('/read', altered(both)), '401 signature verification failed', `${name}, altered`)
      same(await api.get('/any', other), `401 Unexpected 'aud' value`, `${name}, another audience`)
    })
  }
  await story('express-oauth2-jwt-bearer, another audience', async () => {
    const otherApi = await bearer({ issuerBaseURL, audience: world.other, strict: true })
    same(await otherApi.get('/any', other), '200 secret', 'express-oauth2-jwt-bearer, the same token at its audience')
  })
  await story('express-oauth2-jwt-bearer, typ JWT', async () => {
    const audience = world.plain
    const lax = await bearer({ issuerBaseURL, audience })
    same(await lax.get('/any', plain), '200 secret', 'express-oauth2-jwt-bearer, typ JWT')
    const strict = await bearer({ issuerBaseURL, audience, strict: true })
    same(await strict.get('/any', plain), `401 Unexpected 'typ' value`, 'express-oauth2-jwt-bearer, strict, typ JWT')
  })
  await story('express-oauth2-jwt-bearer, DPoP', async () => {
    const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair())
    const asked = { scope: 'api:read', resource: world.api }
    const { access_token: bound } = await client.clientCredentialsGrant(config, asked, { DPoP })
    const insecure = await discovered()
    // For the application, which serves plain HTTP.
    client.allowInsecureRequests(insecure)
    const url = new URL(`${bearerApi.url}/read`)
    const withProof = async (handle) => {
      const options = { DPoP: handle }
      const asked = client.fetchProtectedResource(insecure, bound, url, 'GET', null, undefined, options)
      return told(await asked.catch((error) => error.response ?? Promise.reject(error)))
    }
    const name = 'express-oauth2-jwt-bearer, DPoP'
    same(await withProof(DPoP), '200 secret', `${name}, a token with its proof`)
    const scheme = '401 DPoP-bound token requires the DPoP authentication scheme, not Bearer.'
    same(await bearerApi.get('/read', bound), scheme, `${name}, the same token without proof`)
    const otherKey = client.getDPoPHandle(config, await client.randomDPoPKeyPair())
    const mismatch = '401 JWT Access Token confirmation mismatch'
    same(await withProof(otherKey), mismatch, `${name}, the same token with the proof of another key`)
  })
  await story('passport-jwt', async () => {
    same(await passportApi.get('/any', both), '200 secret', 'passport-jwt, a token')
    same(await passportApi.get('/any'), '401 No auth token', 'passport-jwt, no token')
    same(await passportApi.get('/any', altered(both)), '401 invalid signature', 'passport-jwt, altered')
    const audience = `401 jwt audience invalid. expected: ${world.api}`
    same(await passportApi.get('/any', other), audience, 'passport-jwt, another audience')
    const otherApi = await passportJwt({ jwksUri, issuer: world.issuer, audience: world.other })
    same(await otherApi.get('/any', other), '200 secret', 'passport-jwt, the same token at its audience')
    const stranger = await passportJwt({ jwksUri, issuer: 'https://issuer.example', audience: world.api })
    const issuer = '401 jwt issuer invalid. expected: https://issuer.example'
    same(await stranger.get('/any', both), issuer, 'passport-jwt, another issuer')
  })
  await story('expiry', async () => {
    const { exp } = JSON.parse(Buffer.from(both.split('.')[1], 'base64url'))
    const late = `401 'exp' claim timestamp check failed`
    for (const [name, api, refused] of [
      ['express-oauth2-jwt-bearer', bearerApi, late],
      ['express-oauth2-jwt-bearer, strict', strictApi, late],
      ['passport-jwt', passportApi, '401 jwt expired'],
    ]) {
      same(await at(exp - 1, () => api.get('/any', both)), '200 secret', `${name}, a second before the expiry`)
      // express-oauth2-jwt-bearer tolerates five seconds.
      same(await at(exp + 6, () => api.get('/any', both)), refused, `${name}, expired`)
    }
  })
  for (const server of listening) {
    server.close()
    server.closeAllConnections()
  }
}
