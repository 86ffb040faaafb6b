import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.AsymmetricJWK;
import com.nimbusds.jose.jwk.Curve;
import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.gen.ECKeyGenerator;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import com.nimbusds.oauth2.sdk.ClientCredentialsGrant;
import com.nimbusds.oauth2.sdk.ErrorObject;
import com.nimbusds.oauth2.sdk.Scope;
import com.nimbusds.oauth2.sdk.TokenIntrospectionRequest;
import com.nimbusds.oauth2.sdk.TokenIntrospectionResponse;
import com.nimbusds.oauth2.sdk.TokenIntrospectionSuccessResponse;
import com.nimbusds.oauth2.sdk.TokenRequest;
import com.nimbusds.oauth2.sdk.TokenResponse;
import com.nimbusds.oauth2.sdk.TokenRevocationRequest;
import com.nimbusds.oauth2.sdk.as.AuthorizationServerMetadata;
import com.nimbusds.oauth2.sdk.auth.ClientAuthentication;
import com.nimbusds.oauth2.sdk.auth.ClientSecretBasic;
import com.nimbusds.oauth2.sdk.auth.ClientSecretPost;
import com.nimbusds.oauth2.sdk.auth.PKITLSClientAuthentication;
import com.nimbusds.oauth2.sdk.auth.PrivateKeyJWT;
import com.nimbusds.oauth2.sdk.auth.Secret;
import com.nimbusds.oauth2.sdk.auth.SelfSignedTLSClientAuthentication;
import com.nimbusds.oauth2.sdk.dpop.DefaultDPoPProofFactory;
import com.nimbusds.oauth2.sdk.dpop.JWKThumbprintConfirmation;
import com.nimbusds.oauth2.sdk.http.HTTPRequest;
import com.nimbusds.oauth2.sdk.http.HTTPResponse;
import com.nimbusds.oauth2.sdk.id.Audience;
import com.nimbusds.oauth2.sdk.id.ClientID;
import com.nimbusds.oauth2.sdk.id.Issuer;
import com.nimbusds.oauth2.sdk.token.AccessToken;
import com.nimbusds.oauth2.sdk.token.AccessTokenType;
import com.nimbusds.oauth2.sdk.token.BearerAccessToken;
import com.nimbusds.oauth2.sdk.util.tls.TLSUtils;
import com.nimbusds.oauth2.sdk.util.tls.TLSVersion;
import com.nimbusds.openid.connect.sdk.op.OIDCProviderMetadata;
import java.io.File;
import java.net.URI;
import java.security.KeyStore;
import java.util.List;
import java.util.Set;
import javax.net.ssl.SSLSocketFactory;

/** Nimbus as client (oauth2-oidc-sdk) and as resource server (nimbus-jose-jwt), as its documentation says. */
final class Nimbus {
    private static final JOSEObjectType AT_JWT = new JOSEObjectType("at+jwt");

    private final Report report;
    private final Issuer issuer;
    private final URI api;
    private final URI plain;
    private final URI other;
    private AuthorizationServerMetadata metadata;
    private JWKSource<SecurityContext> keys;

    Nimbus(Report report) {
        this.report = report;
        issuer = new Issuer(report.text("issuer"));
        api = URI.create(report.text("api"));
        plain = URI.create(report.text("plain"));
        other = URI.create(report.text("other"));
    }

    void run() throws Exception {
        metadata = AuthorizationServerMetadata.resolve(issuer);
        keys = JWKSourceBuilder.<SecurityContext>create(metadata.getJWKSetURI().toURL()).build();
        report.chapter("Nimbus, metadata", this::metadata);
        report.chapter("Nimbus, secrets", this::secrets);
        report.chapter("Nimbus, assertions", this::assertions);
        report.chapter("Nimbus, certificates", this::certificates);
        report.chapter("Nimbus, DPoP", this::proofs);
        report.chapter("Nimbus, introspection and revocation", this::askedAbout);
        report.chapter("Nimbus, verification", this::verification);
    }

    private void metadata() throws Exception {
        OIDCProviderMetadata provider = OIDCProviderMetadata.resolve(issuer);
        report.same(provider.getIssuer(), metadata.getIssuer(), "Nimbus, the issuer of both documents");
        report.same(provider.getTokenEndpointURI(), metadata.getTokenEndpointURI(), "Nimbus, the token endpoint of both");
        report.same(provider.getJWKSetURI(), metadata.getJWKSetURI(), "Nimbus, the JWK Set of both documents");
        report.refused(
            () -> AuthorizationServerMetadata.resolve(new Issuer(issuer.getValue() + "/elsewhere")), "404", "Nimbus, another issuer");
    }

    private void secrets() throws Exception {
        ClientID client = new ClientID("secret");
        Secret right = new Secret(report.text("secret"));
        Secret wrong = new Secret("wrong-and-long-enough");
        for (boolean basic : List.of(true, false)) {
            String what = "Nimbus, " + (basic ? "ClientSecretBasic" : "ClientSecretPost");
            ClientAuthentication auth = basic ? new ClientSecretBasic(client, right) : new ClientSecretPost(client, right);
            AccessToken token = issued(auth);
            report.same(token.getType(), AccessTokenType.BEARER, what + ", token_type");
            report.same(token.getScope(), Scope.parse("api:read"), what + ", scope");
            report.same(verified(token, api, AT_JWT).getSubject(), "secret", what + ", sub");
            denied(basic ? new ClientSecretBasic(client, wrong) : new ClientSecretPost(client, wrong), 401, "invalid_client", what);
        }
    }

    private void assertions() throws Exception {
        for (String alg : List.of("ES256", "RS256")) {
            // The client ids are the algorithms. "ES256-issuer" has the key of "ES256" and the default assertion_audience.
            URI endpoint = metadata.getTokenEndpointURI();
            report.same(verified(issued(assertion(alg, alg, endpoint)), api, AT_JWT).getSubject(), alg, "Nimbus, " + alg);
            issued(assertion(alg, alg, URI.create(issuer.getValue())));
            denied(assertion(alg, alg, other), 401, "invalid_client", "Nimbus, " + alg + " for another audience");
            PrivateKeyJWT twice = assertion(alg, alg, endpoint);
            issued(twice);
            denied(twice, 401, "invalid_client", "Nimbus, an assertion of " + alg + " again");
        }
        issued(assertion("ES256-issuer", "ES256", URI.create(issuer.getValue())));
        denied(assertion("ES256-issuer", "ES256", metadata.getTokenEndpointURI()), 401, "invalid_client", "Nimbus, the token endpoint");
        denied(assertion("ES256", "ES256-stranger", metadata.getTokenEndpointURI()), 401, "invalid_client", "Nimbus, another key");
    }

    private void certificates() throws Exception {
        URI endpoint = metadata.getReadOnlyMtlsEndpointAliases().getTokenEndpointURI();
        SSLSocketFactory certified = certificate("certified"), itself = certificate("itself");
        ClientAuthentication byCa = new PKITLSClientAuthentication(new ClientID("certified"), certified);
        ClientAuthentication bySelf = new SelfSignedTLSClientAuthentication(new ClientID("itself"), itself);
        for (ClientAuthentication auth : List.of(byCa, bySelf)) {
            String name = auth.getClientID().getValue();
            JWTClaimsSet claims = verified(answered(request(endpoint, auth, api).send()), api, AT_JWT);
            report.same(claims.getSubject(), name, "Nimbus, " + name);
            String bound = (String) claims.getJSONObjectClaim("cnf").get("x5t#S256");
            report.same(bound, report.world.required("thumbprints").required(name).textValue(), "Nimbus, cnf of " + name);
        }
        ClientAuthentication crossed = new PKITLSClientAuthentication(new ClientID("certified"), itself);
        error(request(endpoint, crossed, api).send(), 401, "invalid_client", "Nimbus, the certificate of another client");
        crossed = new SelfSignedTLSClientAuthentication(new ClientID("itself"), certified);
        error(request(endpoint, crossed, api).send(), 401, "invalid_client", "Nimbus, a certificate that is not registered");
    }

    private void proofs() throws Exception {
        JWK key = new ECKeyGenerator(Curve.P_256).generate();
        DefaultDPoPProofFactory factory = new DefaultDPoPProofFactory(key, JWSAlgorithm.ES256);
        HTTPRequest request = request(metadata.getTokenEndpointURI(), bySecret(), api);
        request.setDPoP(factory.createDPoPJWT("POST", metadata.getTokenEndpointURI()));
        AccessToken token = answered(request.send());
        report.same(token.getType(), AccessTokenType.DPOP, "Nimbus, token_type of a bound token");
        JWKThumbprintConfirmation bound = JWKThumbprintConfirmation.parse(verified(token, api, AT_JWT));
        report.same(bound.getValue(), key.computeThumbprint(), "Nimbus, cnf.jkt");
        error(request.send(), 400, "invalid_dpop_proof", "Nimbus, the same proof again");
        request.setDPoP(factory.createDPoPJWT("POST", metadata.getRevocationEndpointURI()));
        error(request.send(), 400, "invalid_dpop_proof", "Nimbus, a proof for another endpoint");
    }

    private void askedAbout() throws Exception {
        AccessToken token = issued(bySecret());
        ClientAuthentication introspector = new ClientSecretBasic(new ClientID("api"), new Secret(report.text("apiSecret")));
        TokenIntrospectionSuccessResponse told = introspected(introspector, token);
        report.check(told.isActive(), "Nimbus, an active token");
        report.same(told.getClientID(), new ClientID("secret"), "Nimbus, client_id by introspection");
        report.same(told.getAudience(), Audience.create(api.toString()), "Nimbus, aud by introspection");
        report.same(told.getScope(), Scope.parse("api:read"), "Nimbus, scope by introspection");
        report.same(introspected(introspector, issued(bySecret(), plain)).isActive(), false, "Nimbus, a token for another API");
        report.same(introspected(introspector, new BearerAccessToken("not-a-token")).isActive(), false, "Nimbus, no token");
        ClientAuthentication wrong = new ClientSecretBasic(new ClientID("api"), new Secret("wrong-and-long-enough"));
        HTTPResponse answer = new TokenIntrospectionRequest(metadata.getIntrospectionEndpointURI(), wrong, token).toHTTPRequest().send();
        ErrorObject refusal = TokenIntrospectionResponse.parse(answer).toErrorResponse().getErrorObject();
        report.same(refusal.getCode(), "invalid_client", "Nimbus, introspection with a wrong secret");
        answer = revoked(introspector, token);
        report.same(answer.getStatusCode(), 400, "Nimbus, revocation by another client");
        report.same(introspected(introspector, token).isActive(), true, "Nimbus, after that");
        answer = revoked(bySecret(), token);
        report.check(answer.indicatesSuccess(), "Nimbus, revocation: " + answer.getStatusCode());
        report.same(introspected(introspector, token).isActive(), false, "Nimbus, after revocation");
    }

    private void verification() throws Exception {
        AccessToken token = issued(bySecret()), forPlain = issued(bySecret(), plain);
        ClientAuthentication brief = new ClientSecretBasic(new ClientID("brief"), new Secret(report.text("briefSecret")));
        AccessToken expiring = issued(brief, api);
        verified(token, api, AT_JWT);
        report.same(verified(forPlain, plain, JOSEObjectType.JWT).getSubject(), "secret", "Nimbus, --token-typ JWT");
        // The default type verifier of the library.
        report.same(verified(forPlain, plain, null).getSubject(), "secret", "Nimbus, --token-typ JWT by default");
        report.refused(() -> verified(token, api, null), "at+jwt not allowed", "Nimbus, at+jwt by default");
        report.refused(() -> verified(forPlain, plain, AT_JWT), "JWT not allowed", "Nimbus, typ JWT where at+jwt is expected");
        report.refused(() -> verified(token, plain, AT_JWT), "JWT aud claim", "Nimbus, another audience");
        report.refused(() -> verified(altered(token), api, AT_JWT), "Invalid signature", "Nimbus, an altered token");
        Thread.sleep(1100);
        report.refused(() -> verified(expiring, api, AT_JWT), "Expired JWT", "Nimbus, an expired token");
    }

    /** Verifies a token as the documentation shows for access tokens; without a type, with the default of the library. */
    private JWTClaimsSet verified(AccessToken token, URI audience, JOSEObjectType type) throws Exception {
        DefaultJWTProcessor<SecurityContext> processor = new DefaultJWTProcessor<>();
        if (type != null) {
            processor.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(type));
        }
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.ES256, keys));
        DefaultJWTClaimsVerifier<SecurityContext> claims = new DefaultJWTClaimsVerifier<>(
            audience.toString(),
            new JWTClaimsSet.Builder().issuer(issuer.getValue()).build(),
            Set.of("sub", "client_id", "iat", "exp", "scope", "jti"));
        claims.setMaxClockSkew(0);
        processor.setJWTClaimsSetVerifier(claims);
        return processor.process(token.getValue(), null);
    }

    /** The token with another first character of its signature. */
    private static AccessToken altered(AccessToken token) {
        String value = token.getValue();
        int signature = value.lastIndexOf('.') + 1;
        char other = value.charAt(signature) == 'A' ? 'B' : 'A';
        return new BearerAccessToken(value.substring(0, signature) + other + value.substring(signature + 1));
    }

    private ClientAuthentication bySecret() {
        return new ClientSecretBasic(new ClientID("secret"), new Secret(report.text("secret")));
    }

    private PrivateKeyJWT assertion(String client, String key, URI audience) throws Exception {
        JWK jwk = JWK.parse(report.world.required("keys").required(key).toString());
        JWSAlgorithm alg = JWSAlgorithm.parse(jwk.getAlgorithm().getName());
        return new PrivateKeyJWT(new ClientID(client), audience, alg, ((AsymmetricJWK) jwk).toPrivateKey(), jwk.getKeyID(), null);
    }

    private SSLSocketFactory certificate(String name) throws Exception {
        char[] password = report.text("password").toCharArray();
        KeyStore trust = KeyStore.getInstance(new File(report.text("trustStore")), password);
        KeyStore own = KeyStore.getInstance(new File(report.world.required("keyStores").required(name).textValue()), password);
        return TLSUtils.createSSLSocketFactory(trust, own, password, TLSVersion.TLS);
    }

    private HTTPRequest request(URI endpoint, ClientAuthentication auth, URI resource) {
        return new TokenRequest.Builder(endpoint, auth, new ClientCredentialsGrant())
            .scope(Scope.parse("api:read")).resource(resource).build().toHTTPRequest();
    }

    private AccessToken issued(ClientAuthentication auth) throws Exception {
        return issued(auth, api);
    }

    private AccessToken issued(ClientAuthentication auth, URI resource) throws Exception {
        return answered(request(metadata.getTokenEndpointURI(), auth, resource).send());
    }

    private AccessToken answered(HTTPResponse answer) throws Exception {
        TokenResponse response = TokenResponse.parse(answer);
        if (!response.indicatesSuccess()) {
            throw new IllegalStateException(response.toErrorResponse().getErrorObject().toJSONObject().toString());
        }
        report.check(true, "a token");
        return response.toSuccessResponse().getTokens().getAccessToken();
    }

    private void denied(ClientAuthentication auth, int status, String code, String what) throws Exception {
        error(request(metadata.getTokenEndpointURI(), auth, api).send(), status, code, what);
    }

    private void error(HTTPResponse answer, int status, String code, String what) throws Exception {
        TokenResponse response = TokenResponse.parse(answer);
        String found = response.indicatesSuccess() ? "a token" : response.toErrorResponse().getErrorObject().getCode();
        report.same(answer.getStatusCode() + " " + found, status + " " + code, what);
    }

    private TokenIntrospectionSuccessResponse introspected(ClientAuthentication auth, AccessToken token) throws Exception {
        HTTPRequest request = new TokenIntrospectionRequest(metadata.getIntrospectionEndpointURI(), auth, token).toHTTPRequest();
        return TokenIntrospectionResponse.parse(request.send()).toSuccessResponse();
    }

    private HTTPResponse revoked(ClientAuthentication auth, AccessToken token) throws Exception {
        return new TokenRevocationRequest(metadata.getRevocationEndpointURI(), auth, token).toHTTPRequest().send();
    }
}
