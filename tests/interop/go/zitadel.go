// zitadel/oidc as relying party with client credentials, and as resource server that introspects or verifies.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/client"
	"github.com/zitadel/oidc/v3/pkg/client/rp"
	"github.com/zitadel/oidc/v3/pkg/client/rs"
	zitadel "github.com/zitadel/oidc/v3/pkg/oidc"
	"golang.org/x/oauth2"
)

func failed(what string, err error) {
	told.Failures = append(told.Failures, fmt.Sprintf("zitadel/oidc, %s: %v", what, err))
}

func zitadelClients(ctx context.Context, server world, trusting *http.Client) {
	scopes := []string{"api:read"}
	api := url.Values{"resource": {server.API}}
	party := func(issuer, secret string, more ...rp.Option) (rp.RelyingParty, error) {
		options := append([]rp.Option{rp.WithHTTPClient(trusting), rp.WithSigningAlgsFromDiscovery()}, more...)
		return rp.NewRelyingPartyOIDC(ctx, issuer, "secret", secret, "", scopes, options...)
	}

	discovery := rp.WithCustomDiscoveryUrl(server.Issuer + zitadel.DiscoveryEndpoint)
	_, err := party(server.Issuer, server.Secret, discovery)
	check(err == nil, fmt.Sprintf("zitadel/oidc, discovery: %v", err))
	_, err = party("https://issuer.example", server.Secret, discovery)
	check(errors.Is(err, zitadel.ErrIssuerInvalid), fmt.Sprintf("zitadel/oidc, metadata of another issuer: %v", err))

	introspector, err := rs.NewResourceServerClientCredentials(ctx, server.Issuer, "api", server.APISecret, rs.WithClient(trusting))
	if err != nil {
		failed("introspector", err)
		return
	}
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleAutoDetect, oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		relying, err := party(server.Issuer, server.Secret, rp.WithAuthStyle(style))
		if err != nil {
			failed("discovery", err)
			continue
		}
		token, err := rp.ClientCredentials(ctx, relying, api)
		if err != nil {
			failed("a token", err)
			continue
		}
		check(token.Valid() && token.TokenType == "Bearer", "zitadel/oidc, a token")
		zitadelVerify(ctx, server, relying, token.AccessToken)

		answer, err := rs.Introspect[*zitadel.IntrospectionResponse](ctx, introspector, token.AccessToken)
		check(err == nil && answer.Active && answer.ClientID == "secret" && slices.Contains(answer.Audience, server.API) &&
			slices.Equal(answer.Scope, scopes), fmt.Sprintf("zitadel/oidc, introspection: %+v, %v", answer, err))
		err = rp.RevokeToken(ctx, relying, token.AccessToken, "access_token")
		check(err == nil, fmt.Sprintf("zitadel/oidc, revocation with style %d: %v", style, err))
		answer, err = rs.Introspect[*zitadel.IntrospectionResponse](ctx, introspector, token.AccessToken)
		check(err == nil && !answer.Active, fmt.Sprintf("zitadel/oidc, after the revocation: %+v, %v", answer, err))

		wrong, err := party(server.Issuer, "wrong-and-long-enough", rp.WithAuthStyle(style))
		if err != nil {
			failed("discovery", err)
			continue
		}
		_, err = rp.ClientCredentials(ctx, wrong, api)
		var refused *oauth2.RetrieveError
		check(errors.As(err, &refused) && refused.ErrorCode == "invalid_client", fmt.Sprintf("zitadel/oidc, a wrong secret: %v", err))
		err = rp.RevokeToken(ctx, wrong, token.AccessToken, "access_token")
		// The library returns the answer as text.
		refusal := err != nil && strings.Contains(err.Error(), `status 401 and text: {"error":"invalid_client"`)
		check(refusal, fmt.Sprintf("zitadel/oidc, revocation with a wrong secret: %v", err))
	}
	zitadelAssertions(ctx, server, trusting)
}

// code returns the error code of an answer of grantd.
func code(err error) string {
	var refused *zitadel.Error
	if errors.As(err, &refused) {
		return string(refused.ErrorType)
	}
	return ""
}

// zitadelVerify verifies a token with the JWK Set, as the library verifies an ID token.
func zitadelVerify(ctx context.Context, server world, relying rp.RelyingParty, token string) {
	keys := relying.IDTokenVerifier().KeySet
	algorithms := rp.WithSupportedSigningAlgorithms(relying.IDTokenVerifier().SupportedSignAlgs...)
	verify := func(issuer, audience string, ahead time.Duration, token string) error {
		verifier := rp.NewIDTokenVerifier(issuer, audience, keys, algorithms, rp.WithIssuedAtOffset(ahead))
		_, err := rp.VerifyIDToken[*zitadel.IDTokenClaims](ctx, token, verifier)
		return err
	}
	altered := []byte(token)
	// Ten characters before the end: the last one may hold bits that the decoder ignores.
	at := len(altered) - 10
	if altered[at] == 'A' {
		altered[at] = 'B'
	} else {
		altered[at] = 'A'
	}
	for _, one := range []struct {
		what     string
		found    error
		expected error
	}{
		{"a token", verify(server.Issuer, server.API, 0, token), nil},
		{"a token, later", verify(server.Issuer, server.API, 59*time.Minute, token), nil},
		{"expired", verify(server.Issuer, server.API, 61*time.Minute, token), zitadel.ErrExpired},
		{"another issuer", verify("https://issuer.example", server.API, 0, token), zitadel.ErrIssuerInvalid},
		{"another audience", verify(server.Issuer, "https://other.example", 0, token), zitadel.ErrAudience},
		{"altered", verify(server.Issuer, server.API, 0, string(altered)), zitadel.ErrSignatureInvalid},
	} {
		check(errors.Is(one.found, one.expected), fmt.Sprintf("zitadel/oidc, verifying, %s: %v", one.what, one.found))
	}
}

// zitadelAssertions authenticates by private_key_jwt. The assertions of the resource server live for an hour.
func zitadelAssertions(ctx context.Context, server world, trusting *http.Client) {
	relying, err := rp.NewRelyingPartyOIDC(ctx, server.Issuer, "default-signer", "", "", []string{"api:read"},
		rp.WithHTTPClient(trusting), rp.WithAuthStyle(oauth2.AuthStyleInParams))
	if err != nil {
		failed("discovery", err)
		return
	}
	ask := func(audience string, lifetime time.Duration) (*oauth2.Token, error) {
		signer, err := client.NewSignerFromPrivateKeyByte([]byte(server.Key), "")
		if err != nil {
			return nil, err
		}
		assertion, err := client.SignedJWTProfileAssertion("default-signer", []string{audience}, lifetime, signer)
		if err != nil {
			return nil, err
		}
		form := url.Values{"resource": {server.API}}
		client.ClientAssertionFormAuthorization(assertion)(form)
		return rp.ClientCredentials(ctx, relying, form)
	}
	token, err := ask(server.Issuer, time.Minute)
	if err != nil {
		failed("an assertion", err)
		return
	}
	check(token.Valid(), "zitadel/oidc, a token by an assertion")
	var refused *oauth2.RetrieveError
	_, err = ask("https://issuer.example", time.Minute)
	check(errors.As(err, &refused) && refused.ErrorCode == "invalid_client", fmt.Sprintf("zitadel/oidc, an assertion for another issuer: %v", err))
	_, err = ask(server.Issuer, time.Hour)
	check(errors.As(err, &refused) && refused.ErrorCode == "invalid_client", fmt.Sprintf("zitadel/oidc, an assertion of an hour: %v", err))

	introspect := func(clientID string) (*zitadel.IntrospectionResponse, error) {
		resource, err := rs.NewResourceServerJWTProfile(ctx, server.Issuer, clientID, "", []byte(server.Key), rs.WithClient(trusting))
		if err != nil {
			return nil, err
		}
		return rs.Introspect[*zitadel.IntrospectionResponse](ctx, resource, token.AccessToken)
	}
	answer, err := introspect("hour-signer")
	check(err == nil && answer.Active && answer.ClientID == "default-signer", fmt.Sprintf("zitadel/oidc, introspection by an assertion: %+v, %v", answer, err))
	_, err = introspect("default-signer")
	check(code(err) == "invalid_client", fmt.Sprintf("zitadel/oidc, introspection by an assertion of an hour: %v", err))
}
