// OAuth clients and resource servers of Go, unmodified and as their documentation says: golang.org/x/oauth2,
// go-oidc, lestrrat's jwx and zitadel/oidc. Called by go_clients.py with a description of a running server on stdin; prints
// {"passed", "failures"}.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

type world struct {
	Issuer, API, Secret, APISecret, Key, CA string
}

type report struct {
	Passed   int      `json:"passed"`
	Failures []string `json:"failures"`
}

var told report

func check(ok bool, what string) {
	if ok {
		told.Passed++
	} else {
		told.Failures = append(told.Failures, what)
	}
}

func main() {
	var server world
	if err := json.NewDecoder(os.Stdin).Decode(&server); err != nil {
		panic(err)
	}
	pem, err := os.ReadFile(server.CA)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, trusting)
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, trusting), server.Issuer)
	if err != nil {
		told.Failures = append(told.Failures, fmt.Sprintf("go-oidc, discovery: %v", err))
	}
	styles := []oauth2.AuthStyle{oauth2.AuthStyleAutoDetect, oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams}
	for _, style := range styles {
		config := clientcredentials.Config{
			ClientID:       "secret",
			ClientSecret:   server.Secret,
			TokenURL:       server.Issuer + "/token",
			Scopes:         []string{"api:read"},
			EndpointParams: url.Values{"resource": {server.API}},
			AuthStyle:      style,
		}
		token, err := config.Token(ctx)
		if err != nil {
			told.Failures = append(told.Failures, fmt.Sprintf("x/oauth2, style %d: %v", style, err))
			continue
		}
		check(token.Valid() && token.TokenType == "Bearer", "x/oauth2, a token")
		if provider != nil {
			verifier := provider.Verifier(&oidc.Config{ClientID: server.API})
			_, err = verifier.Verify(oidc.ClientContext(ctx, trusting), token.AccessToken)
			check(err == nil, fmt.Sprintf("go-oidc, verifying: %v", err))
		}
		keys, err := jwk.Fetch(ctx, server.Issuer+"/jwks", jwk.WithHTTPClient(trusting))
		check(err == nil, fmt.Sprintf("jwx, the key set: %v", err))
		_, err = jwt.Parse([]byte(token.AccessToken), jwt.WithKeySet(keys), jwt.WithIssuer(server.Issuer), jwt.WithAudience(server.API))
		check(err == nil, fmt.Sprintf("jwx, verifying: %v", err))

		config.ClientSecret = "wrong-and-long-enough"
		_, err = config.Token(ctx)
		var refused *oauth2.RetrieveError
		check(errors.As(err, &refused) && refused.ErrorCode == "invalid_client", fmt.Sprintf("x/oauth2, a wrong secret: %v", err))
	}
	zitadelClients(ctx, server, trusting)
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		panic(err)
	}
}
