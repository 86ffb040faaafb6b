import static org.springframework.security.oauth2.client.web.client.RequestAttributeClientRegistrationIdResolver.clientRegistrationId;

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.springframework.boot.WebApplicationType;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.support.GenericApplicationContext;
import org.springframework.security.oauth2.client.OAuth2AuthorizeRequest;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClientManager;
import org.springframework.security.oauth2.client.web.client.OAuth2ClientHttpRequestInterceptor;
import org.springframework.security.oauth2.core.OAuth2AccessToken;
import org.springframework.web.client.RestClient;

/** Spring Boot as client and as resource server, configured by the properties and beans of its documentation. */
final class Spring {
    private final Report report;
    private final HttpClient http = HttpClient.newHttpClient();
    private OAuth2AuthorizedClientManager manager;

    private Spring(Report report) {
        this.report = report;
    }

    /** The client and the resource servers; see java_clients.py. */
    public static void main(String[] arguments) throws Exception {
        Report report = new Report();
        report.chapter("Spring", new Spring(report)::run);
        report.tell();
    }

    private void run() throws Exception {
        manager = started(WebApplicationType.NONE, registrations(), Client.class).getBean(OAuth2AuthorizedClientManager.class);
        report.chapter("Spring, the client", this::client);
        report.chapter("Spring, the resource server", () -> resourceServer("for-plain", "for-api", Api.class));
        report.chapter("Spring, the resource server for at+jwt", () -> resourceServer("for-api", "for-plain", Api.class, AtJwt.class));
    }

    private Map<String, Object> registrations() {
        Map<String, Object> all = new HashMap<>();
        all.put("spring.security.oauth2.client.provider.grantd.issuer-uri", report.text("issuer"));
        // Properties are enough for a client of one resource.
        String secret = report.text("singleSecret"), basic = "client_secret_basic", post = "client_secret_post";
        register(all, "unset", "single", null, secret, "api:read");
        register(all, "basic", "single", basic, secret, "api:read");
        register(all, "post", "single", post, secret, "api:read");
        register(all, "both-scopes", "single", basic, secret, "api:read,api:write");
        register(all, "unknown-scope", "single", basic, secret, "api:admin");
        register(all, "wrong-basic", "single", basic, "wrong-and-long-enough", "api:read");
        register(all, "wrong-post", "single", post, "wrong-and-long-enough", "api:read");
        for (String resource : List.of("api", "plain", "other")) {
            register(all, "for-" + resource, "secret", basic, report.text("secret"), "api:read");
        }
        for (String resource : List.of("api", "plain")) {
            register(all, "brief-for-" + resource, "brief", basic, report.text("briefSecret"), "api:read");
        }
        for (String id : List.of("ES256", "RS256", "ES256-issuer")) {
            register(all, id, id, "private_key_jwt", null, "api:read");
        }
        register(all, "customized", "ES256-issuer", "private_key_jwt", null, "api:read");
        register(all, "stranger", "ES256", "private_key_jwt", null, "api:read");
        return all;
    }

    private static void register(Map<String, Object> all, String id, String client, String method, String secret, String scope) {
        String prefix = "spring.security.oauth2.client.registration." + id + ".";
        all.put(prefix + "provider", "grantd");
        all.put(prefix + "client-id", client);
        all.put(prefix + "authorization-grant-type", "client_credentials");
        all.put(prefix + "scope", scope);
        if (method != null) {
            all.put(prefix + "client-authentication-method", method);
        }
        if (secret != null) {
            all.put(prefix + "client-secret", secret);
        }
    }

    private void client() {
        for (String id : List.of("unset", "basic", "post", "for-api", "ES256", "RS256", "customized")) {
            OAuth2AccessToken token = token(id);
            report.same(token.getTokenType(), OAuth2AccessToken.TokenType.BEARER, "Spring, token_type of " + id);
            report.same(token.getScopes(), Set.of("api:read"), "Spring, scope of " + id);
        }
        report.same(token("both-scopes").getScopes(), Set.of("api:read", "api:write"), "Spring, two scopes");
        report.refused(() -> token("unknown-scope"), "[invalid_scope]", "Spring, an unknown scope");
        // Spring addresses the assertion of "ES256-issuer" to the token endpoint; a customizer changes that of "customized".
        for (String id : List.of("wrong-basic", "wrong-post", "stranger", "ES256-issuer")) {
            // Spring reads the error code of a 400 only; it quotes the body of a 401.
            report.refused(() -> token(id), "401 Unauthorized: \"{\"error\":\"invalid_client\"", "Spring, " + id);
        }
    }

    /** An API that takes either audience, so that its beans alone decide which typ it accepts. */
    private void resourceServer(String right, String wrong, Class<?>... sources) throws Exception {
        OAuth2AccessToken expiring = token("brief-" + right), token = token(right);
        Map<String, Object> properties = Map.of(
            "server.address", "127.0.0.1",
            "server.port", "0",
            "spring.security.oauth2.resourceserver.jwt.issuer-uri", report.text("issuer"),
            "spring.security.oauth2.resourceserver.jwt.audiences", report.text("plain") + "," + report.text("api"));
        try (ConfigurableApplicationContext context = started(WebApplicationType.SERVLET, properties, sources)) {
            String url = "http://127.0.0.1:" + context.getEnvironment().getProperty("local.server.port");
            HttpResponse<String> answer = asked(url + "/read", token.getTokenValue());
            report.same(answer.statusCode() + " " + answer.body(), "200 secret", "Spring, a token " + right + ", " + challenge(answer));

            refused(url + "/read", null, 401, "Bearer");
            refused(url + "/read", token(wrong).getTokenValue(), 401, "typ");
            refused(url + "/read", token("for-other").getTokenValue(), 401, "aud");
            refused(url + "/read", altered(token.getTokenValue()), 401, "signature");
            refused(url + "/write", token.getTokenValue(), 403, "insufficient_scope");
            Thread.sleep(1100);
            refused(url + "/read", expiring.getTokenValue(), 401, "expired");
            report.same(asked(url + "/read", token.getTokenValue()).statusCode(), 200, "Spring, the first token after that");

            if (right.equals("for-plain")) {
                // The client sends its token by itself.
                RestClient client = RestClient.builder().requestInterceptor(new OAuth2ClientHttpRequestInterceptor(manager)).build();
                String body = client.get().uri(url + "/write").attributes(clientRegistrationId("both-scopes")).retrieve().body(String.class);
                report.same(body, "single", "Spring, by the interceptor");
            }
        }
    }

    private ConfigurableApplicationContext started(WebApplicationType type, Map<String, Object> properties, Class<?>... sources) {
        return new SpringApplicationBuilder(sources)
            .web(type)
            .properties(properties)
            .properties("spring.main.banner-mode=off", "logging.level.root=off")
            .initializers(context -> ((GenericApplicationContext) context).registerBean(Report.class, () -> report))
            .run();
    }

    private OAuth2AccessToken token(String registration) {
        OAuth2AuthorizeRequest request = OAuth2AuthorizeRequest.withClientRegistrationId(registration).principal("this program").build();
        return manager.authorize(request).getAccessToken();
    }

    private HttpResponse<String> asked(String url, String token) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url));
        if (token != null) {
            request.header("Authorization", "Bearer " + token);
        }
        return http.send(request.build(), BodyHandlers.ofString());
    }

    private static String challenge(HttpResponse<?> answer) {
        return answer.statusCode() + " " + answer.headers().firstValue("WWW-Authenticate").orElse("");
    }

    private void refused(String url, String token, int status, String reason) throws Exception {
        String answer = challenge(asked(url, token));
        report.check(answer.startsWith(status + " ") && answer.contains(reason), "Spring, " + reason + ": " + answer);
    }

    /** The token with another first character of its signature. */
    private static String altered(String token) {
        int signature = token.lastIndexOf('.') + 1;
        char other = token.charAt(signature) == 'A' ? 'B' : 'A';
        return token.substring(0, signature) + other + token.substring(signature + 1);
    }
}
