import com.nimbusds.jose.jwk.JWK;
import java.util.List;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.convert.converter.Converter;
import org.springframework.security.oauth2.client.AuthorizedClientServiceOAuth2AuthorizedClientManager;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClientManager;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClientProviderBuilder;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClientService;
import org.springframework.security.oauth2.client.endpoint.NimbusJwtClientAuthenticationParametersConverter;
import org.springframework.security.oauth2.client.endpoint.OAuth2ClientCredentialsGrantRequest;
import org.springframework.security.oauth2.client.endpoint.RestClientClientCredentialsTokenResponseClient;
import org.springframework.security.oauth2.client.registration.ClientRegistration;
import org.springframework.security.oauth2.client.registration.ClientRegistrationRepository;
import org.springframework.util.LinkedMultiValueMap;
import org.springframework.util.MultiValueMap;

/**
 * A client that is no web application. The ids of the registrations tell what each is for: "for-api" asks for one of
 * several resources, "ES256-issuer" is a client whose assertions must be addressed to the issuer.
 */
@Configuration
@EnableAutoConfiguration
class Client {
    @Bean
    OAuth2AuthorizedClientManager manager(Report report, ClientRegistrationRepository registrations, OAuth2AuthorizedClientService clients) {
        RestClientClientCredentialsTokenResponseClient tokens = new RestClientClientCredentialsTokenResponseClient();
        tokens.addParametersConverter(assertion(report));
        tokens.addParametersConverter(resource(report));
        AuthorizedClientServiceOAuth2AuthorizedClientManager manager = new AuthorizedClientServiceOAuth2AuthorizedClientManager(registrations, clients);
        manager.setAuthorizedClientProvider(OAuth2AuthorizedClientProviderBuilder.builder()
            .clientCredentials(credentials -> credentials.accessTokenResponseClient(tokens))
            .build());
        return manager;
    }

    private static Converter<OAuth2ClientCredentialsGrantRequest, MultiValueMap<String, String>> assertion(Report report) {
        NimbusJwtClientAuthenticationParametersConverter<OAuth2ClientCredentialsGrantRequest> assertion =
            new NimbusJwtClientAuthenticationParametersConverter<>(registration -> key(report, registration));
        assertion.setJwtClientAssertionCustomizer(context -> {
            if (context.getAuthorizationGrantRequest().getClientRegistration().getRegistrationId().equals("customized")) {
                context.getClaims().audience(List.of(report.text("issuer")));
            }
        });
        return assertion;
    }

    private static JWK key(Report report, ClientRegistration registration) {
        String key = switch (registration.getRegistrationId()) {
            case "RS256" -> "RS256";
            case "stranger" -> "ES256-stranger";
            default -> "ES256";
        };
        try {
            return JWK.parse(report.world.required("keys").required(key).toString());
        } catch (java.text.ParseException broken) {
            throw new IllegalStateException(broken);
        }
    }

    private static Converter<OAuth2ClientCredentialsGrantRequest, MultiValueMap<String, String>> resource(Report report) {
        return request -> {
            MultiValueMap<String, String> parameters = new LinkedMultiValueMap<>();
            String[] id = request.getClientRegistration().getRegistrationId().split("for-");
            if (id.length == 2) {
                parameters.add("resource", report.text(id[1]));
            }
            return parameters;
        };
    }
}
